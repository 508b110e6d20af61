/**
 * What identity does for the other services, on any store: answers Resolve and Watermark, feeds `Watch`, and publishes
 * the change log.
 * @module
 */
import {
  type CallOptions,
  type Clock,
  createId,
  type EventLog,
  type IdentityClient,
  inTime,
  type Logger,
  type RandomBytes,
  ServiceError,
  share,
} from '@token-gateway/platform';
import type {
  Change as ChangeMessage,
  Provider as ProviderMessage,
  ResolveResponse,
  Signal,
  SignalReceipt,
  WatermarkRequest,
} from '@token-gateway/schemas/identity';
import { ChangeFeed } from './log/feed.ts';
import { Publisher } from './log/publisher.ts';
import { answerWatermark } from './log/watermark.ts';
import { Resolver } from './resolve.ts';
import { revoke } from './revoke.ts';
import type { Fence, Head, ProviderState, Store } from './store/port.ts';

/** A read of the head that takes longer does not hold up those who ask after it. */
const headPatienceMs = 200;

export interface ProtocolDeps {
  readonly store: Store;
  /** What is read is answered after it; absent where a deposed primary is kept from answering by other means. */
  readonly fence?: Fence;
  /** Where changes are published; null = nowhere. */
  readonly eventLog: EventLog | null;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: RandomBytes;
  readonly onResolved?: (response: ResolveResponse) => void;
  /** How long ended sessions and tokens are kept; absent = for good. */
  readonly revocationRetentionMs?: number | undefined;
  /** Does what a provider said; absent where no provider is heard. */
  readonly onSignal?: (signal: Signal) => Promise<SignalReceipt>;
  /** A question, and the head read after it arrived. */
  readonly onWatermark?: (request: WatermarkRequest, head: Head) => void;
  /** It leads the publication from now on, in this term; or no more. */
  readonly onTerm?: (term: number | null) => void;
}

export interface Protocol {
  /** What the gRPC server exposes. */
  readonly client: IdentityClient;
  readonly feed: ChangeFeed;
  /** Aborts when it closes. */
  readonly closing: AbortSignal;
  close(): Promise<void>;
}

/** Begins feeding and publishing the changes after `head`, which the store has just been opened at. */
export function startProtocol(deps: ProtocolDeps, head: Head): Protocol {
  const { store, eventLog, clock, logger, random } = deps;
  const feed = new ChangeFeed({ store, clock, logger }, head);
  feed.start();
  const candidate = createId(random, clock.now().wallMs);
  const onTerm = deps.onTerm ?? (() => {});
  const publisher =
    eventLog === null ? null : new Publisher({ store, feed, eventLog, clock, logger, candidate, onTerm });
  publisher?.start();
  const { fence = async () => {} } = deps;
  // One read serves everyone who was waiting when it began, so that each answer was read after its question arrived.
  const readHead = share(
    async () => {
      const newest = await store.head();
      await fence();
      return newest;
    },
    { patience: { clock, ms: headPatienceMs } },
  );
  const resolver = new Resolver({ store, clock, random, revocationRetentionMs: deps.revocationRetentionMs });
  const closing = new AbortController();

  const client: IdentityClient = {
    resolve: (request, options) =>
      within(clock, options, async () => {
        const response = await resolver.resolve(request);
        await fence();
        deps.onResolved?.(response);
        return response;
      }),
    watermark: (request, options) =>
      within(clock, options, async () => {
        const newest = await readHead();
        deps.onWatermark?.(request, newest);
        return answerWatermark({ store, feed, clock }, newest, request);
      }),
    listProviders: (options) =>
      within(clock, options, async () => {
        const { head: at, state } = await store.providers();
        return { epoch: at.epoch, seq: at.seq, providers: state.map(providerMessage) };
      }),
    revoke: (request, options) =>
      within(clock, options, async () => {
        const response = await revoke(store, request);
        await fence();
        return response;
      }),
    receiveSignal: (signal, options) =>
      within(clock, options, async () => {
        if (deps.onSignal === undefined) throw new ServiceError('internal', { detail: 'no provider is heard' });
        const receipt = await deps.onSignal(signal);
        await fence();
        return receipt;
      }),
    async watch(request, onChange, signal, onOpen) {
      const ended = AbortSignal.any([signal, closing.signal]);
      let after = request.fromNewest ? feed.newest : feed.placeAfter(request.after);
      onOpen?.();
      while (!ended.aborted) {
        const rows = await feed.next(after, ended).catch((cause: unknown) => {
          throw new ServiceError('identity_unavailable', { cause });
        });
        for (const row of rows) {
          const message: ChangeMessage = { ...row, chain: Buffer.from(row.chain, 'hex') };
          onChange(message);
          after = { epoch: after.epoch, seq: row.seq };
        }
      }
    },
    async close() {},
  };
  return {
    client,
    feed,
    closing: closing.signal,
    async close() {
      closing.abort();
      await publisher?.close();
      await feed.close();
    },
  };
}

/** A call that does not end in time is given up; its query may still end later. */
async function within<T>(clock: Clock, { timeoutMs }: CallOptions, call: () => Promise<T>): Promise<T> {
  try {
    return await inTime(clock, timeoutMs, call(), () => {
      throw new ServiceError('identity_unavailable', { detail: `no answer in ${timeoutMs} ms` });
    });
  } catch (cause) {
    if (cause instanceof ServiceError && cause.code === 'identity_unavailable') throw cause;
    throw new ServiceError('identity_unavailable', { cause });
  }
}

function providerMessage({ jwksUri, audiences, algorithms, claimMapping, ...rest }: ProviderState): ProviderMessage {
  return {
    id: rest.id,
    tenantId: rest.tenantId,
    issuer: rest.issuer,
    revision: rest.revision,
    audiences: [...audiences],
    jwksUri: jwksUri ?? '',
    algorithms: [...algorithms],
    claimMappingJson: JSON.stringify(claimMapping),
    rulesJson: JSON.stringify(rest.rules ?? {}),
  };
}
