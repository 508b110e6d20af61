import type { Clock } from '../clock/port.ts';
import type { QuotaLedger } from './port.ts';

/** For the gateways of one process, and for tests. */
export function createMemoryQuotaLedger({ clock }: { readonly clock: Clock }): QuotaLedger {
  /** When time will have made up for everything. */
  const arrivals = new Map<string, number>();
  return {
    async report(reports) {
      const nowMs = clock.now().monotonicMs;
      return reports.map(({ counter, chargedMs, ageMs, debtMs }) => {
        const known = arrivals.get(counter) ?? Number.NEGATIVE_INFINITY;
        const arrivalMs = Math.max(Math.max(known, nowMs - ageMs) + chargedMs, nowMs + debtMs);
        arrivals.set(counter, arrivalMs);
        return Math.max(0, arrivalMs - nowMs);
      });
    },
    async close() {
      arrivals.clear();
    },
  };
}
