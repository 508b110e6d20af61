/**
 * Asks a transmitter for its security events (RFC 8936), again as soon as it answered, and it holds the answer until it has
 * some. What is acknowledged is a change in the log already; what could not be decided or done is not, and comes again. Each
 * replica asks for itself: an event that two of them get is done once.
 * @module
 */
import { type Clock, type Logger, type Secret, ServiceError, toServiceError } from '@token-gateway/platform';
import { isUnavailable } from '../http/oauth-error.ts';
import { toSecurityEventAnswer } from '../http/security-event-endpoint.ts';
import type { PostDocument } from '../providers/document-fetcher.ts';
import { createSecurityEvents } from './security-event.ts';
import type { SignalReceiver } from './signal-receiver.ts';

export interface SignalPoll {
  readonly endpoint: string;
  /** By which the transmitter knows us; null = by nothing. */
  readonly bearerToken: Secret | null;
}

export interface PollingDeps {
  readonly postDocument: PostDocument;
  readonly receiveSignal: SignalReceiver;
  readonly clock: Clock;
  readonly logger: Logger;
}

const eventsMax = 100;
/** How long a transmitter may hold an answer. */
const timeoutMs = 30_000;
/** A transmitter that holds nothing back is not asked more often. */
const pauseMs = 250;
const failurePauseMsMax = 30_000;

/** What is told with the next question; once it was answered, the transmitter has heard it. */
interface Told {
  readonly ack: string[];
  readonly setErrs: Record<string, { readonly err: string; readonly description: string }>;
}

/** Resolves when closed: what was not acknowledged by then comes again. */
export function startPolling(
  { postDocument, receiveSignal, clock, logger }: PollingDeps,
  { endpoint, bearerToken }: SignalPoll,
): { close(): Promise<void> } {
  const closing = new AbortController();
  const { signal } = closing;
  const kind = createSecurityEvents({ clock, bearerToken: null });
  const headers: Record<string, string> =
    bearerToken === null ? {} : { authorization: `Bearer ${bearerToken.reveal()}` };

  async function ask(told: Told): Promise<ReadonlyMap<string, string>> {
    const body = JSON.stringify({ maxEvents: eventsMax, returnImmediately: false, ...told });
    return setsOf(await postDocument(endpoint, { body, headers, timeoutMs, signal }));
  }

  /** Resolves with whether all of them were decided. */
  async function receive(sets: ReadonlyMap<string, string>, told: Told): Promise<boolean> {
    let areAllDecided = true;
    for (const [id, token] of sets) {
      if (signal.aborted) return false;
      try {
        await receiveSignal(token, kind);
        told.ack.push(id);
      } catch (error) {
        if (isUnavailable(toServiceError(error).code)) areAllDecided = false;
        else told.setErrs[id] = toSecurityEventAnswer(error).body;
      }
    }
    return areAllDecided;
  }

  async function run(): Promise<void> {
    let told = nothingToTell();
    let failures = 0;
    while (!signal.aborted) {
      try {
        const sets = await ask(told);
        told = nothingToTell();
        if (!(await receive(sets, told)))
          throw new ServiceError('provider_unavailable', { detail: 'not all were decided' });
        if (failures > 0) logger.info({ endpoint }, 'security events are received again');
        failures = 0;
        if (sets.size === 0) await clock.sleep(pauseMs, signal);
      } catch (err) {
        if (signal.aborted) return;
        if (failures === 0) logger.warn({ err, endpoint }, 'security events cannot be received');
        failures += 1;
        await clock.sleep(Math.min(pauseMs * 2 ** failures, failurePauseMsMax), signal);
      }
    }
  }

  const running = run();
  return {
    async close() {
      closing.abort();
      await running;
    },
  };
}

const nothingToTell = (): Told => ({ ack: [], setErrs: {} });

/** RFC 8936 section 2.3: `sets`, by their ids. */
function setsOf(answer: unknown): ReadonlyMap<string, string> {
  const sets: unknown = typeof answer === 'object' && answer !== null && 'sets' in answer ? answer.sets : null;
  if (typeof sets !== 'object' || sets === null || Array.isArray(sets)) {
    throw new ServiceError('provider_unavailable', { detail: 'no answer of RFC 8936' });
  }
  const entries: [string, unknown][] = Object.entries(sets).slice(0, eventsMax);
  // What is no text is no token, and refused as such.
  return new Map(entries.map(([id, token]) => [id, typeof token === 'string' ? token : '']));
}
