import { type Change, changeFromRow } from '@token-gateway/revocation';
import { ChangeSchema } from '@token-gateway/schemas';
import type { Change as ChangeMessage } from '@token-gateway/schemas/identity';
import { Compile } from 'typebox/compile';
import type { Clock } from '../clock/port.ts';
import type { IdentityClient } from '../identity-client/port.ts';
import type { Logger } from '../telemetry.ts';
import type { SignalSource } from './port.ts';
import { keepConnected } from './reconnecting.ts';

const changeSchema = Compile(ChangeSchema);

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
    subscribe: (subscriber) =>
      keepConnected({
        name,
        logger,
        clock,
        random,
        listener: subscriber,
        connect(listener, signal, onOpen) {
          function onMessage(message: ChangeMessage): void {
            const change = read(message);
            if (change === null) listener.onMalformed();
            else listener.onChange(change);
          }
          return identity.watch({ after: 0, fromNewest: true }, onMessage, signal, onOpen);
        },
      }),
  };
}

function read(message: ChangeMessage): Change | null {
  try {
    const change: unknown = changeFromRow({ ...message, chain: message.chain.toString('hex') });
    return changeSchema.Check(change) ? change : null;
  } catch {
    return null;
  }
}
