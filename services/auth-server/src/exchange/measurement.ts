import { type Clock, type Logger, type Registry, toServiceError } from '@token-gateway/platform';
import { Counter, Histogram } from 'prom-client';
import type { Exchange } from './exchange.ts';

interface Deps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly registry: Registry;
}

/** Counts and times each exchange, and logs each refusal. */
export function measureExchange(exchange: Exchange, { clock, logger, registry }: Deps): Exchange {
  const total = new Counter({
    name: 'tg_auth_server_exchanges_total',
    help: 'Exchanges by kind of credential, outcome and code.',
    labelNames: ['kind', 'outcome', 'code'],
    registers: [registry],
  });
  const duration = new Histogram({
    name: 'tg_auth_server_exchange_duration_seconds',
    help: 'Time an exchange takes.',
    labelNames: ['kind'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5],
    registers: [registry],
  });

  return async (request) => {
    const { kind } = request.credential;
    const startedMs = clock.now().monotonicMs;
    try {
      const result = await exchange(request);
      const code = result.outcome === 'refused' ? result.code : '';
      total.inc({ kind, outcome: result.outcome, code });
      if (result.outcome === 'refused') {
        logger.info({ kind, code, subjects: result.subjects, clientId: request.clientId }, 'exchange refused');
      }
      return result;
    } catch (error) {
      const { code } = toServiceError(error);
      total.inc({ kind, outcome: 'unavailable', code });
      throw error;
    } finally {
      duration.observe({ kind }, (clock.now().monotonicMs - startedMs) / 1000);
    }
  };
}
