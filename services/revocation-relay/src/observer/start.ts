import type { Clock, EventLog, Lifecycle, Telemetry } from '@token-gateway/platform';
import { alertsTopic } from '@token-gateway/schemas';
import type { ObserverSettings } from '../config.ts';
import { createCanaryKeys } from './canary-keys.ts';
import { createObserver } from './observer.ts';
import { createProbe } from './probes.ts';

export interface StartObserverDeps extends Telemetry {
  /** Where alerts are published; null = nowhere. */
  readonly eventLog: EventLog | null;
  readonly clock: Clock;
  readonly random: () => number;
  readonly lifecycle: Lifecycle;
}

/** An observer with its real adapters, which is closed by the lifecycle. */
export function startObserver(deps: StartObserverDeps, settings: ObserverSettings): void {
  const { eventLog, clock, random, logger, registry, lifecycle } = deps;
  const { identityUrl, userId } = settings;
  const observer = createObserver(
    {
      keys: createCanaryKeys({ clock }, { identityUrl, userId, adminKey: settings.adminKey.reveal() }),
      gateways: settings.gateways.map((address) => createProbe(address, clock)),
      alert: async (alert) => eventLog?.append(alertsTopic, [JSON.stringify(alert)]),
      clock,
      random,
      logger,
      registry,
    },
    { intervalMs: settings.intervalSeconds * 1000 },
  );
  lifecycle.onClose('observer', () => observer.close());
  observer.start();
  logger.info({ gateways: settings.gateways }, 'observing');
}
