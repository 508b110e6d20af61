import type { Clock, Registry } from '@token-gateway/platform';
import { Counter, Gauge, Histogram } from 'prom-client';

const delayBucketsSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600];

export function createRelayMetrics(registry: Registry, clock: Clock) {
  const registers = [registry];
  const changes = new Counter({
    name: 'tg_relay_changes_total',
    help: 'Records of the changes topic by what became of them.',
    labelNames: ['result'],
    registers,
  });
  const applyFailures = new Counter({
    name: 'tg_relay_apply_failures_total',
    help: 'Attempts to apply a change that failed; each is repeated until it succeeds.',
    registers,
  });
  const hygieneFailures = new Counter({
    name: 'tg_relay_hygiene_failures_total',
    help: 'Steps after a change that were not done: entries of L2 to remove, markers of expiring keys to set.',
    labelNames: ['step'],
    registers,
  });
  const appliedSeq = new Gauge({
    name: 'tg_relay_applied_seq',
    help: 'Sequence of the change applied or ignored last.',
    registers,
  });
  const delay = new Histogram({
    name: 'tg_relay_delay_seconds',
    help: 'From the commit of a change, by the wall clock of identity, until it was applied.',
    buckets: delayBucketsSeconds,
    registers,
  });
  let heartbeatAtMs: number | null = null;
  new Gauge({
    name: 'tg_relay_heartbeat_age_seconds',
    help: 'How long ago the newest heartbeat that arrived was made; it grows while the chain before the relay is broken.',
    registers,
    collect() {
      if (heartbeatAtMs !== null) this.set((clock.now().wallMs - heartbeatAtMs) / 1000);
    },
  });

  return {
    change(result: 'applied' | 'ignored' | 'malformed'): void {
      changes.inc({ result });
    },
    applied(seq: number, delayMs: number): void {
      appliedSeq.set(seq);
      delay.observe(Math.max(0, delayMs) / 1000);
    },
    applyFailed(): void {
      applyFailures.inc();
    },
    hygieneFailed(step: 'entries' | 'marker' | 'skipped'): void {
      hygieneFailures.inc({ step });
    },
    heartbeat(atMs: number): void {
      heartbeatAtMs = Math.max(heartbeatAtMs ?? atMs, atMs);
    },
  };
}
