/** Watches one credential end: from the answer to what ends it until the last accepted request at any gateway. */
import type { ExtAuthzClient } from './ext-authz-client.ts';

/** Probing goes on this long after the last gateway refused, so that a late accept would be seen. */
const watchAfterMs = 30;
/** D of the tenants under test: the default. */
export const boundMs = 1000;

export interface Ending {
  /** From the answer to the end of the last accepted request, 0 when that ended before. */
  readonly latencyMs: number;
  /** How long the answer took. */
  readonly answerMs: number;
  /** Of each gateway, between two probes. */
  readonly gapsMs: readonly number[];
  readonly probes: number;
  readonly acceptedAfterBound: number;
}

interface Probe {
  /** When the answer of the last accepted request arrived, and of the first refused one. */
  lastAcceptedAt: number;
  firstRefusedAt: number;
  acceptedAfterBound: number;
  probes: number;
  largestGapMs: number;
}

/** The credential of the request has to be accepted at every gateway. Rejects when it is not, or does not end in 5 s. */
export async function measureEnding(
  clients: readonly ExtAuthzClient[],
  request: Buffer,
  end: () => Promise<unknown>,
  probeEveryMs = 2,
): Promise<Ending> {
  for (const client of clients) {
    if ((await client.check(request)) !== 0) throw new Error('a credential is refused before it ends');
  }
  const stop = new AbortController();
  let answeredAt = Number.POSITIVE_INFINITY;
  const probes = clients.map((client) => probe(client, request, probeEveryMs, () => answeredAt + boundMs, stop.signal));
  try {
    await new Promise((resolve) => setTimeout(resolve, 10));
    const askedAt = performance.now();
    await end();
    answeredAt = performance.now();
    while (!probes.every(({ firstRefusedAt }) => firstRefusedAt > 0)) {
      if (performance.now() > answeredAt + 5 * boundMs) throw new Error('it was not refused everywhere');
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await new Promise((resolve) => setTimeout(resolve, watchAfterMs));
    return {
      latencyMs: Math.max(0, ...probes.map(({ lastAcceptedAt }) => lastAcceptedAt - answeredAt)),
      answerMs: answeredAt - askedAt,
      gapsMs: probes.map(({ largestGapMs }) => largestGapMs),
      probes: probes.reduce((sum, { probes: count }) => sum + count, 0),
      acceptedAfterBound: probes.reduce((sum, { acceptedAfterBound: count }) => sum + count, 0),
    };
  } finally {
    stop.abort();
  }
}

/** Probes one gateway until told to stop; a request is sent every so often, whether or not the one before was answered. */
function probe(
  client: ExtAuthzClient,
  request: Buffer,
  probeEveryMs: number,
  boundEndsAt: () => number,
  signal: AbortSignal,
): Probe {
  const state: Probe = { lastAcceptedAt: 0, firstRefusedAt: 0, acceptedAfterBound: 0, probes: 0, largestGapMs: 0 };
  let sentAt = performance.now();
  const send = () => {
    const now = performance.now();
    state.largestGapMs = Math.max(state.largestGapMs, now - sentAt);
    sentAt = now;
    state.probes += 1;
    client.check(request).then(
      (status) => {
        const at = performance.now();
        if (status === 0) {
          state.lastAcceptedAt = at;
          if (now > boundEndsAt()) state.acceptedAfterBound += 1;
        } else if (state.firstRefusedAt === 0) {
          state.firstRefusedAt = at;
        }
      },
      () => undefined,
    );
  };
  send();
  // Looks every millisecond: a timer of 2 ms fires late as often as not.
  const timer = setInterval(() => {
    if (performance.now() - sentAt >= probeEveryMs - 0.5) send();
  }, 1);
  signal.addEventListener('abort', () => clearInterval(timer));
  return state;
}
