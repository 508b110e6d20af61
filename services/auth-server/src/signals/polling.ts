/**
 * Asks a transmitter for its security events (RFC 8936), again as soon as it answered, and it holds the answer until it has
 * some. What is acknowledged is a change in the log already; what could not be decided or done is not, and comes again, and
 * for a while so is what is signed by a key that is not known, or not yet. Each replica asks for itself: an event that two of
 * them get is done once.
 * @module
 */
import {
  type Clock,
  type Instant,
  isObject,
  type Logger,
  type Secret,
  ServiceError,
  toServiceError,
} from '@token-gateway/platform';
import { ageMs } from '@token-gateway/revocation';
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
/** For how long after an event came the key that signed it may still be published, and be fetched, here. */
const keyWaitMs = 10_000;

/** What is told with the next question; once it was answered, the transmitter has heard it. */
interface Told {
  readonly ack: string[];
  readonly setErrs: Map<string, { readonly err: string; readonly description: string }>;
}

/** Resolves when closed: what was not acknowledged by then comes again. */
export function startPolling(
  { postDocument, receiveSignal, clock, logger }: PollingDeps,
  { endpoint, bearerToken }: SignalPoll,
): { close(): Promise<void> } {
  const closing = new AbortController();
  const { signal } = closing;
  // Where a path says who may ask, it is a secret.
  const transmitter = new URL(endpoint).origin;
  const kind = createSecurityEvents({ clock, bearerToken: null });
  const headers: Record<string, string> =
    bearerToken === null ? {} : { authorization: `Bearer ${bearerToken.reveal()}` };

  /** Since when events have been here whose keys are unknown, of those that the last answer had. */
  let awaited: ReadonlyMap<string, Instant> = new Map();

  async function ask({ ack, setErrs }: Told): Promise<ReadonlyMap<string, string>> {
    const told = { ack, setErrs: Object.fromEntries(setErrs) };
    const body = JSON.stringify({ maxEvents: eventsMax, returnImmediately: false, ...told });
    return setsOf(await postDocument(endpoint, { body, headers, timeoutMs, signal }));
  }

  /** Resolves with how many of them could not be decided. */
  async function receive(sets: ReadonlyMap<string, string>, told: Told): Promise<number> {
    let undecided = 0;
    const stillAwaited = new Map<string, Instant>();
    for (const [id, token] of sets) {
      if (signal.aborted) break;
      try {
        await receiveSignal(token, kind);
        told.ack.push(id);
      } catch (error) {
        const { code } = toServiceError(error);
        const since = awaited.get(id) ?? clock.now();
        if (isUnavailable(code)) undecided += 1;
        else if (code === 'token_key_unknown' && ageMs(since, clock.now()) < keyWaitMs) stillAwaited.set(id, since);
        else told.setErrs.set(id, toSecurityEventAnswer(error).body);
      }
    }
    awaited = stillAwaited;
    return undecided;
  }

  async function run(): Promise<void> {
    let told = nothingToTell();
    let failures = 0;
    let known: ReadonlyMap<string, string> = new Map();
    while (!signal.aborted) {
      try {
        const sets = await ask(told);
        told = nothingToTell();
        const undecided = await receive(sets, told);
        if (undecided > 0 && undecided === sets.size) {
          throw new ServiceError('provider_unavailable', { detail: 'none was decided' });
        }
        if (failures > 0) logger.info({ transmitter }, 'security events are received again');
        failures = 0;
        // Also where it sends again what it was told of, or what could not be decided.
        const isNews = [...sets.keys()].some((id) => !known.has(id));
        known = sets;
        if (!isNews) await clock.sleep(pauseMs, signal);
      } catch (err) {
        if (signal.aborted) return;
        if (failures === 0) logger.warn({ err, transmitter }, 'security events cannot be received');
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

const nothingToTell = (): Told => ({ ack: [], setErrs: new Map() });

/** RFC 8936 section 2.3: `sets`, by their ids. */
function setsOf(answer: unknown): ReadonlyMap<string, string> {
  const sets = isObject(answer) ? answer['sets'] : null;
  if (!isObject(sets)) {
    throw new ServiceError('provider_unavailable', { detail: 'no answer of RFC 8936' });
  }
  const entries = Object.entries(sets).slice(0, eventsMax);
  // What is no text is no token, and refused as such.
  return new Map(entries.map(([id, token]) => [id, typeof token === 'string' ? token : '']));
}
