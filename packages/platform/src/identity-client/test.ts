import { type Change, changePayload } from '@token-gateway/revocation';
import { ChangeLog } from '@token-gateway/revocation/testing';
import type {
  Change as ChangeMessage,
  ListProvidersResponse,
  ResolveRequest,
  ResolveResponse,
  RevokeResponse,
  SignalReceipt,
} from '@token-gateway/schemas/identity';
import { ServiceError } from '../errors.ts';
import type { CallOptions, IdentityClient } from './port.ts';

/** An identity service for tests of its clients: a change log, and answers that a test gives, withholds or fails. */
export interface TestIdentity {
  readonly client: IdentityClient;
  readonly log: ChangeLog;
  /** Every request but watches, in the order they arrived. */
  readonly requests: unknown[];
  readonly watchCount: number;
  resolved: ResolveResponse;
  providers: ListProvidersResponse;
  revoked: RevokeResponse;
  received: SignalReceipt;
  /** What every call throws; null = they are answered. */
  failure: unknown;
  /** Adds a change and tells the watchers. */
  commit(subjects: string[], type?: Change['type']): Change;
  /** Calls are kept waiting until `release`. */
  hold(): void;
  release(): void;
  /** Ends every watch, as a fault does. */
  breakWatches(): void;
}

export function createTestIdentity(): TestIdentity {
  const log = new ChangeLog();
  const watches = new Set<{ tell(message: ChangeMessage): void; fail(error: Error): void }>();
  let held = Promise.withResolvers<void>();
  held.resolve();

  async function answer<T>(request: unknown, { timeoutMs }: CallOptions, make: () => T): Promise<T> {
    identity.requests.push(request);
    if (identity.failure !== null) throw identity.failure;
    const result = make();
    const overrun = Promise.withResolvers<never>();
    const timeout = setTimeout(
      () => overrun.reject(new ServiceError('identity_unavailable', { detail: 'no answer in time' })),
      timeoutMs,
    );
    try {
      await Promise.race([held.promise, overrun.promise]);
      return result;
    } finally {
      clearTimeout(timeout);
    }
  }

  const client: IdentityClient = {
    resolve: (request: ResolveRequest, options) => answer(request, options, () => identity.resolved),
    watermark: (request, options) =>
      answer(request, options, () => {
        const found = log.answer({ ...request, heardChain: request.heardChain.toString('hex') });
        return {
          ...found,
          chain: Buffer.from(found.chain, 'hex'),
          baseChain: Buffer.from(found.baseChain, 'hex'),
          changes: found.changes.map(messageOf),
        };
      }),
    listProviders: (options) => answer({}, options, () => identity.providers),
    revoke: (request, options) => answer(request, options, () => identity.revoked),
    receiveSignal: (signal, options) => answer(signal, options, () => identity.received),
    watch({ after, fromNewest }, onChange, signal, onOpen) {
      if (identity.failure !== null) return Promise.reject(identity.failure);
      return new Promise((resolve, reject) => {
        const watch = { tell: onChange, fail: reject };
        watches.add(watch);
        onOpen?.();
        if (!fromNewest) for (const change of log.changes.slice(after)) onChange(messageOf(change));
        const end = (): void => {
          watches.delete(watch);
          resolve();
        };
        if (signal.aborted) end();
        signal.addEventListener('abort', end, { once: true });
      });
    },
    close: async () => undefined,
  };

  const identity: TestIdentity = {
    client,
    log,
    requests: [],
    resolved: { epoch: 1, seq: 0, minSigningGeneration: 0 },
    providers: { epoch: 1, seq: 0, providers: [] },
    revoked: { found: true, keyId: 'k' },
    received: { outcome: 'applied', tenantId: 'ten_1', userId: 'usr_1' },
    failure: null,
    get watchCount() {
      return watches.size;
    },
    commit(subjects, type) {
      const change = log.append(subjects, type);
      for (const watch of watches) watch.tell(messageOf(change));
      return change;
    },
    hold() {
      held = Promise.withResolvers();
    },
    release() {
      held.resolve();
    },
    breakWatches() {
      for (const watch of watches) watch.fail(new ServiceError('identity_unavailable', { detail: 'watch broke' }));
      watches.clear();
    },
  };
  return identity;
}

/** A change as it travels between services. */
export function messageOf(change: Change): ChangeMessage {
  const { epoch, seq, chain } = change;
  return { epoch, seq, chain: Buffer.from(chain, 'hex'), payload: changePayload(change) };
}
