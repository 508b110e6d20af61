/**
 * Security event tokens (RFC 8417) as OpenID Shared Signals has them: what an event of CAEP or RISC takes away here, and
 * from whom (RFC 9493). Events that take nothing away, and those that nobody knows, are received and do nothing.
 * @module
 */
import { hash, timingSafeEqual } from 'node:crypto';
import { type Clock, isObject, ServiceError } from '@token-gateway/platform';
import type { AccountName, Provider, Signal } from '@token-gateway/schemas/identity';
import { textOf } from '../exchange/claim-mapping.ts';
import { audiencesOf, checkIssued } from '../exchange/external-token.ts';
import { type JwtForm, readSecurityEventForm } from '../exchange/jwt-form.ts';
import { configurationOf, type SecurityEventRules } from '../providers/provider-configuration.ts';
import { invalid } from './claims.ts';
import { type EventEffect, effectNameOf } from './event-types.ts';
import type { SignalContent, SignalKind } from './signal-receiver.ts';
import { type SubjectName, subjectOf } from './subject-identifier.ts';

/** How many events of one token are looked at; those that transmitters send have one. */
const eventsMax = 10;

/** `bearerToken`: what a push brought; null where the provider was asked, and nothing was pushed. */
export function createSecurityEvents({
  clock,
  bearerToken,
}: {
  readonly clock: Clock;
  readonly bearerToken: string | null;
}): SignalKind {
  return {
    name: 'security-event',
    read: readSecurityEventForm,
    providersOf({ issuer }, list) {
      const heard = list.providers.filter((provider) => rulesOf(provider, issuer)?.transmitter.issuer === issuer);
      if (heard.length === 0) throw new ServiceError('token_issuer_unknown');
      return heard;
    },
    signerOf(provider) {
      const { transmitter, bearerTokenSha256 } = heardOf(provider);
      if (bearerToken !== null && bearerTokenSha256 !== null) {
        const isIt = timingSafeEqual(hash('sha256', bearerToken, 'buffer'), bearerTokenSha256);
        if (!isIt) throw new ServiceError('signal_sender_refused', { detail: provider.id });
      }
      return transmitter;
    },
    signalsOf: (form, provider) => signalsOf(form, provider, clock.now().wallMs),
  };
}

/** Null where none are heard. Throws where a provider of this issuer has rules that are not understood. */
function rulesOf(provider: Provider, issuer: string): SecurityEventRules | null {
  try {
    return configurationOf(provider).securityEvents;
  } catch (error) {
    // Of another, it is none of this token's concern.
    if (provider.issuer === issuer) throw error;
    return null;
  }
}

function heardOf(provider: Provider): SecurityEventRules {
  const { securityEvents } = configurationOf(provider);
  if (securityEvents === null) throw new ServiceError('token_issuer_unknown', { detail: provider.id });
  return securityEvents;
}

function signalsOf(form: JwtForm, provider: Provider, nowMs: number): SignalContent[] {
  const { claims } = form;
  const configuration = configurationOf(provider);
  const { audiences } = heardOf(provider);
  if (!audiencesOf(claims['aud']).some((audience) => audiences.has(audience))) {
    throw new ServiceError('token_audience_refused', { detail: provider.id });
  }
  // No `exp` (RFC 8417 section 2.2): what ended does not begin again by being told late.
  const issuedAtSeconds = checkIssued(form, nowMs / 1000, configuration);
  const tokenId = textOf('jti', claims['jti']);
  if (issuedAtSeconds === null || tokenId === undefined) throw invalid('iat or jti is missing');
  const { events } = claims;
  if (!isObject(events)) throw invalid('events are no object');
  const entries = Object.entries(events);
  if (entries.length === 0 || entries.length > eventsMax) throw invalid('no event, or too many');
  return entries.map(([type, event]) => {
    if (!isObject(event)) throw invalid('an event is no object');
    const { name, effect } = effectNameOf(type, event);
    const issuedAtMs = issuedAtSeconds * 1000;
    const atMs = timeOf(event['event_timestamp']) ?? timeOf(claims['toe']) ?? issuedAtMs;
    const about = { id: `${tokenId}\n${type}`, event: name, issuedAtMs, atMs };
    if (effect === null) return { ...about, effect: null };
    // In the token (OpenID Shared Signals 1.0), or, as before it, in the event.
    const subject = subjectOf(claims['sub_id'] ?? event['subject'], provider, configuration);
    return { ...about, effect: effectOn(effect, subject) };
  });
}

function effectOn(effect: EventEffect, { sessionId, account }: SubjectName): NonNullable<Signal['effect']> {
  if (effect === 'endSession' && sessionId !== null) return { $case: 'endSession', value: sessionId };
  if (account === null) throw invalid('a subject without an account');
  return { $case: effect === 'endSession' ? 'endIssued' : effect, value: account satisfies AccountName };
}

/** CAEP 1.0 section 2 has seconds; the drafts before it had milliseconds. What is neither is not there. */
function timeOf(value: unknown): number | null {
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0) return null;
  return Math.floor(value < 1e11 ? value * 1000 : Math.min(value, Number.MAX_SAFE_INTEGER));
}
