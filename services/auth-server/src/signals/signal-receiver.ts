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
  readonly name: 'back-channel-logout' | 'security-event';
  /** Its form; throws ServiceError for what is none. */
  read(token: string): JwtForm;
  /** Whom it may be of, one at least; none of it is verified yet. Throws where it is of nobody. */
  providersOf(form: JwtForm, list: ProviderList): readonly Provider[];
  /** Whose keys verify it; throws where its sender may not send it. */
  signerOf(provider: Provider): Provider;
  /** What a provider says by it, signed by its keys; times and claims are checked here. */
  signalsOf(form: JwtForm, provider: Provider): readonly SignalContent[];
}

export type SignalContent = Omit<Signal, 'providerId' | 'idSha256' | 'effect'> & {
  /** What tells it from every other of the provider. */
  readonly id: string;
  /** Null: it takes nothing away. */
  readonly effect: NonNullable<Signal['effect']> | null;
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

const outcomes = ['applied', 'nothing_to_do', 'repeated', 'too_old', 'provider_unknown'] as const;

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

  async function verifyFor(token: string, form: JwtForm, provider: Provider, kind: SignalKind): Promise<void> {
    try {
      await verify(token, form, kind.signerOf(provider));
    } catch (error) {
      // Whose keys are away need not be waited for where the token is not for it, whoever signed it.
      if (isUnavailable(toServiceError(error).code)) kind.signalsOf(form, provider);
      throw error;
    }
  }

  async function tell({ id, effect, ...content }: SignalContent, provider: Provider, kind: SignalKind): Promise<void> {
    const receipt =
      effect === null
        ? { outcome: 'nothing_to_do', tenantId: provider.tenantId, userId: '' }
        : await identity.receiveSignal(
            { ...content, effect, providerId: provider.id, idSha256: hash('sha256', id, 'buffer') },
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
    const providers = kind.providersOf(form, await directory.recent());
    const ends = await Promise.allSettled(
      providers.map(async (provider) => {
        await verifyFor(token, form, provider, kind);
        // In the order of the token: one may undo another.
        await inTurn(kind.signalsOf(form, provider), (signal) => tell(signal, provider, kind));
      }),
    );
    const failures = ends.flatMap((end) => (end.status === 'rejected' ? [toServiceError(end.reason)] : []));
    // Whoever could not be told may be meant: all of it has to be sent again.
    const unavailable = failures.find(({ code }) => isUnavailable(code));
    if (unavailable !== undefined) throw unavailable;
    if (failures.length === providers.length) throw furthestOf(failures);
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

/** Goes on where one fails, and rejects with the first failure in the end. */
async function inTurn<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const failures: unknown[] = [];
  for (const item of items) await work(item).catch((error: unknown) => failures.push(error));
  if (failures.length > 0) throw failures[0];
}

/** What a token is refused for, in the order in which it is checked; whatever is not here comes after. */
const steps: readonly ErrorCode[] = [
  'signal_sender_refused',
  'token_algorithm_refused',
  'token_key_unknown',
  'token_signature_invalid',
  'token_audience_refused',
];

/** Of several providers, the refusal of the one that came closest. */
function furthestOf(failures: readonly ServiceError[]): ServiceError | undefined {
  const depthOf = ({ code }: ServiceError) => (steps.includes(code) ? steps.indexOf(code) : steps.length);
  return failures.toSorted((a, b) => depthOf(b) - depthOf(a))[0];
}

function identitiesOf(provider: Provider, { tenantId, userId }: SignalReceipt) {
  return auditedIdentities([providerSubject(provider.id), tenantSubject(tenantId), userSubject(userId)]);
}
