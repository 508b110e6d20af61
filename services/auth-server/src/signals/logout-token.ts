/**
 * Logout tokens (OpenID Connect Back-Channel Logout 1.0, sections 2.4 and 2.6): a session that ended, or, where none is
 * named, all that a subject was given.
 * @module
 */
import { type Clock, isObject, ServiceError } from '@token-gateway/platform';
import type { Provider } from '@token-gateway/schemas/identity';
import { evaluate, textOf } from '../exchange/claim-mapping.ts';
import { audiencesOf, checkTimes } from '../exchange/external-token.ts';
import { type JwtForm, readLogoutForm } from '../exchange/jwt-form.ts';
import { configurationOf } from '../providers/provider-configuration.ts';
import { invalid } from './claims.ts';
import type { SignalContent, SignalKind } from './signal-receiver.ts';

const logoutEvent = 'http://schemas.openid.net/event/backchannel-logout';

export function createLogoutTokens({ clock }: { readonly clock: Clock }): SignalKind {
  return {
    name: 'back-channel-logout',
    read: readLogoutForm,
    providersOf({ issuer, claims }, list) {
      const audiences = audiencesOf(claims['aud']);
      const ofIssuer = list.ofIssuer(issuer);
      if (ofIssuer.length === 0) throw new ServiceError('token_issuer_unknown');
      const providers = ofIssuer.filter((provider) => {
        const { logoutAudiences } = configurationOf(provider);
        return audiences.some((audience) => logoutAudiences.has(audience));
      });
      if (providers.length === 0) throw new ServiceError('token_audience_refused');
      return providers;
    },
    signerOf: (provider) => provider,
    signalsOf: (form, provider) => [signalOf(form, provider, clock.now().wallMs)],
  };
}

function signalOf(form: JwtForm, provider: Provider, nowMs: number): SignalContent {
  const { claims } = form;
  const configuration = configurationOf(provider);
  const { issuedAtSeconds } = checkTimes(form, nowMs / 1000, configuration);
  const id = textOf('jti', claims['jti']);
  if (!('iat' in claims) || id === undefined) throw invalid('iat or jti is missing');
  if ('nonce' in claims) throw invalid('nonce: an ID token');
  if (!isLogout(claims['events'])) throw invalid('events: no logout');
  const session = textOf('sid', claims['sid']);
  // By the name that the provider's other tokens have for the user, where it is not `sub`.
  const subject = textOf('subject', evaluate('subject', configuration.mapping.subject, claims));
  const issuedAtMs = issuedAtSeconds * 1000;
  const about = { id, event: 'backchannel-logout', issuedAtMs, atMs: issuedAtMs };
  if (session !== undefined) return { ...about, effect: { $case: 'endSession', value: session } };
  if (subject === undefined) throw invalid('neither sid nor a subject');
  return { ...about, effect: { $case: 'endIssued', value: { subject, email: '' } } };
}

/** Of events, the one that says so, with an object. */
function isLogout(events: unknown): boolean {
  return isObject(events) && Object.hasOwn(events, logoutEvent) && isObject(events[logoutEvent]);
}
