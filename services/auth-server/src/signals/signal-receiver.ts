/**
 * A token by which a provider says that something is over: read, verified with the provider's own keys, told to identity,
 * audited. One issuer may be several providers, of several tenants and with different keys: each hears what is for it, and
 * what its keys verify.
 * @module
 */
import { hash } from 'node:crypto';
import {
  type AuditTally,
  type AuditTrail,
  auditedIdentities,
  type ErrorCode,
  type IdentityClient,
  ServiceError,
  toServiceError,
} from '@token-gateway/platform';
import { providerSubject, tenantSubject, userSubject } from '@token-gateway/revocation';
import type { Provider, Signal, SignalReceipt } from '@token-gateway/schemas/identity';
import { auditSource } from '../exchange/audit.ts';
import type { JwtForm } from '../exchange/jwt-form.ts';
import { isUnavailable } from '../http/oauth-error.ts';
import type { ProviderDirectory, ProviderList } from '../providers/provider-directory.ts';
import type { SignatureVerifier } from '../verification/port.ts';

/** What kind of token it is, and how one is understood. */
export interface SignalKind {
  readonly name: 'back-channel-logout';
  /** Its form; throws ServiceError for what is none. */
  read(token: string): JwtForm;
  /** Whom it may be of; none of it is verified yet. */
  providersOf(form: JwtForm, list: ProviderList): readonly Provider[];
  /** What a provider says by it, verified but for the times and claims, which are checked here. */
  signalOf(form: JwtForm, provider: Provider): SignalContent;
}

export type SignalContent = Omit<Signal, 'providerId' | 'idSha256' | 'effect'> & {
  /** What tells it from every other of the provider. */
  readonly id: string;
  readonly effect: NonNullable<Signal['effect']>;
};

export interface SignalReceiverDeps {
  readonly identity: Pick<IdentityClient, 'receiveSignal'>;
  readonly directory: Pick<ProviderDirectory, 'recent'>;
  readonly verifier: SignatureVerifier;
  readonly audit: Pick<AuditTrail, 'record'>;
  readonly tally: Pick<AuditTally, 'note'>;
}

/**
 * Resolves once what the token says is a change in the log, now or before. Rejects with the code of why it is refused, and
 * with one of status 503 where that could not be decided or done: it may be sent again.
 */
export type SignalReceiver = (token: string, kind: SignalKind) => Promise<void>;

const outcomes = ['applied', 'repeated', 'too_old', 'provider_unknown'] as const;

export function createSignalReceiver(
  { identity, directory, verifier, audit, tally }: SignalReceiverDeps,
  config: { readonly identityTimeoutMs: number },
): SignalReceiver {
  async function verify(token: string, form: JwtForm, provider: Provider): Promise<void> {
    if (provider.algorithms.length > 0 && !provider.algorithms.includes(form.header.alg)) {
      throw new ServiceError('token_algorithm_refused', { detail: provider.id });
    }
    await verifier.verify(token, form, provider);
  }

  async function tell(form: JwtForm, provider: Provider, kind: SignalKind): Promise<void> {
    const { id, ...content } = kind.signalOf(form, provider);
    const receipt = await identity.receiveSignal(
      { ...content, providerId: provider.id, idSha256: hash('sha256', id, 'buffer') },
      { timeoutMs: config.identityTimeoutMs },
    );
    const outcome = outcomes.find((candidate) => candidate === receipt.outcome);
    if (outcome === undefined) throw new ServiceError('identity_unavailable', { detail: 'an outcome not understood' });
    audit.record({
      source: auditSource,
      type: 'tg.audit.signal.received',
      data: { ...identitiesOf(provider, receipt), kind: kind.name, event: content.event, outcome },
    });
    if (outcome === 'too_old') throw new ServiceError('token_expired', { detail: 'a signal of long ago' });
    if (outcome === 'provider_unknown') throw new ServiceError('token_issuer_unknown', { detail: provider.id });
  }

  async function receive(token: string, kind: SignalKind): Promise<void> {
    const form = kind.read(token);
    const list = await directory.recent();
    if (list.ofIssuer(form.issuer).length === 0) throw new ServiceError('token_issuer_unknown');
    const providers = kind.providersOf(form, list);
    if (providers.length === 0) throw new ServiceError('token_audience_refused');
    const ends = await Promise.allSettled(
      providers.map(async (provider) => {
        await verify(token, form, provider);
        await tell(form, provider, kind);
      }),
    );
    const failures = ends.flatMap((end) => (end.status === 'rejected' ? [toServiceError(end.reason)] : []));
    // Whoever could not be told may be meant: all of it has to be sent again.
    const unavailable = failures.find(({ code }) => isUnavailable(code));
    if (unavailable !== undefined) throw unavailable;
    if (failures.length === providers.length) throw failures[0];
  }

  return async (token, kind) => {
    try {
      await receive(token, kind);
    } catch (error) {
      const { code } = toServiceError(error);
      noteRefusal(kind, code);
      throw error;
    }
  };

  function noteRefusal({ name: kind }: SignalKind, code: ErrorCode): void {
    const record = { source: auditSource, type: 'tg.audit.signal.refused', data: { kind, code } } as const;
    tally.note(record, record);
  }
}

function identitiesOf(provider: Provider, { tenantId, userId }: SignalReceipt) {
  return auditedIdentities([providerSubject(provider.id), tenantSubject(tenantId), userSubject(userId)]);
}
