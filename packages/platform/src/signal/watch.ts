import { changeFromRow } from '@token-gateway/revocation';
import type { Clock } from '../clock/port.ts';
import type { IdentityClient } from '../identity-client/port.ts';
import type { Logger } from '../telemetry.ts';
import type { SignalSource } from './port.ts';
import { keepConnected } from './reconnecting.ts';

export interface WatchSourceOptions {
  readonly logger: Logger;
  readonly clock: Clock;
  /** For jitter: a number in [0, 1). */
  readonly random?: () => number;
}

/** Changes straight from identity, without anything in between; no heartbeats and no purges. */
export function createWatchSource(
  identity: IdentityClient,
  { logger, clock, random = Math.random }: WatchSourceOptions,
): SignalSource {
  const name = 'watch';
  return {
    name,
    subscribe: (listener) =>
      keepConnected({
        name,
        logger,
        clock,
        random,
        listener,
        connect: (signal, onOpen) =>
          identity.watch(
            { after: 0, fromNewest: true },
            (row) => listener.onChange(changeFromRow({ ...row, chain: Buffer.from(row.chain).toString('hex') })),
            signal,
            onOpen,
          ),
      }),
  };
}
