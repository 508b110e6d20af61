import type { Registry } from '@token-gateway/platform';
import { Counter, Histogram } from 'prom-client';
import type { ObserverOutcome } from './observer.ts';

const secondsBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];
const outcomes: readonly ObserverOutcome[] = ['revoked', 'violation', 'unreachable', 'not-accepted', 'failed'];

/** All series are there from the start, so that an alert on their increase misses no first time. */
export function createObserverMetrics(registry: Registry, gateways: readonly string[]) {
  const registers = [registry];
  const seconds = new Histogram({
    name: 'tg_observer_revocation_seconds',
    help: 'From the answer of a revocation until the gateway refused the key, and went on to; 0 when it did before.',
    labelNames: ['gateway'],
    buckets: secondsBuckets,
    registers,
  });
  const probes = new Counter({
    name: 'tg_observer_probes_total',
    help: 'Rounds, for each gateway, by what they found.',
    labelNames: ['outcome'],
    registers,
  });
  const violations = new Counter({
    name: 'tg_observer_violations_total',
    help: 'Rounds in which a gateway accepted a key in a request begun later than D after its revocation was answered.',
    labelNames: ['gateway'],
    registers,
  });
  for (const outcome of outcomes) probes.inc({ outcome }, 0);
  for (const gateway of gateways) violations.inc({ gateway }, 0);

  return {
    took(gateway: string, ms: number): void {
      seconds.observe({ gateway }, Math.max(0, ms) / 1000);
    },
    probed(outcome: ObserverOutcome): void {
      probes.inc({ outcome });
    },
    violated(gateway: string): void {
      violations.inc({ gateway });
    },
  };
}
