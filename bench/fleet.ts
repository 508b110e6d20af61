/**
 * Fifty gateways in one process, with connections of their own to identity, Redis and the auth server: whether the bound
 * holds for all of them, and what one more gateway costs identity and Redis.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { createGateway, createHttpExchangeClient, type Gateway, type RuledDecision } from '@token-gateway/gateway';
import { systemClock as clock, createRedisPubSubSource, createRedisTokenCache } from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { openParts } from '../tests/parts/index.ts';
import { connectIdentityAs } from '../tests/system/identity-connection.ts';
import { fullChain, type System, startSystem } from '../tests/system/system.ts';
import { readCpu } from './cpu.ts';
import { numberOf } from './options.ts';
import { boundMs } from './probe.ts';
import { formatTable, summarize, summaryRow } from './statistics.ts';

const fleetSize = 50;
const idleMs = 15_000;
const pollMs = 5;
const giveUpMs = 3000;

export async function benchmarkFleet(args: readonly string[]): Promise<Record<string, unknown>> {
  const size = numberOf(args, 'gateways', fleetSize);
  const parts = await openParts(['postgres', 'kafka', 'redis']);
  await using system = await startSystem(parts, { ...fullChain, gateways: 1, envoy: false });
  const alone = await cost(system);
  const fleet = await Promise.all(Array.from({ length: size }, () => startGateway(system)));
  await untilReady(fleet);
  const together = await cost(system);

  const { id: tenantId } = await system.admin.createTenant();
  const bySignal = await revocations(system, fleet, tenantId, numberOf(args, 'revocations', 100));
  await system.relay?.stop();
  const byWatermark = await revocations(system, fleet, tenantId, 20);
  await Promise.all(fleet.map((gateway) => gateway.close()));

  const [signal, watermark] = [summarize(bySignal.latencies), summarize(byWatermark.latencies)];
  console.log(
    formatTable([
      [`answer -> last accept at any of ${size} gateways, ms`, 'p50', 'p99', 'max', 'n'],
      summaryRow('by signal', signal),
      summaryRow('without the relay, by watermark', watermark),
    ]),
  );
  const perGateway = {
    identityCpuMs: ((together.identityCpu - alone.identityCpu) / size) * 1000,
    redisCpuMs: ((together.redisCpu - alone.redisCpu) / size) * 1000,
  };
  console.log(
    `idle, CPU per second: identity ${(alone.identityCpu * 1000).toFixed(1)} ms with 1 gateway, ` +
      `${(together.identityCpu * 1000).toFixed(1)} ms with ${size + 1}: ${perGateway.identityCpuMs.toFixed(2)} ms each; ` +
      `Redis ${perGateway.redisCpuMs.toFixed(3)} ms each`,
  );
  const late = bySignal.late + byWatermark.late;
  console.log(
    `${bySignal.decisions + byWatermark.decisions} decisions, ${late} accepted after the bound of ${boundMs} ms`,
  );
  if (late > 0) process.exitCode = 1;
  return { size, signal, watermark, perGateway, alone, together, late };
}

async function startGateway(system: System): Promise<Gateway> {
  const env = system.gatewayEnvironment;
  const telemetry = createSilentTelemetry();
  const { logger } = telemetry;
  const url = system.redis?.url ?? '';
  const identity = await connectIdentityAs(system, 'gateway', env['TG_IDENTITY_ADDRESSES'] ?? '');
  const exchange = await createHttpExchangeClient(
    { clock },
    {
      urls: [env['TG_AUTH_SERVER_URL'] ?? ''],
      clientId: 'gateway',
      clientKey: JSON.parse(env['TG_CLIENT_KEY'] ?? '{}') as Record<string, string>,
    },
  );
  const tokenCache = createRedisTokenCache({ url, logger });
  const gateway = createGateway(
    {
      ...telemetry,
      identity,
      exchange,
      tokenCache,
      usedProofs: null,
      signals: [createRedisPubSubSource({ url, logger, clock })],
      clock,
      random: Math.random,
    },
    { audience: 'internal', fleetSecret: Buffer.from(env['TG_FLEET_SECRET'] ?? ''), cacheBytes: 2 ** 21 },
  );
  gateway.start();
  return {
    ...gateway,
    async close() {
      await gateway.close();
      await Promise.all([identity.close(), exchange.close(), tokenCache.close()]);
    },
  };
}

async function untilReady(fleet: readonly Gateway[]): Promise<void> {
  while (fleet.some((gateway) => gateway.notReady().length > 0)) await sleep(20);
}

/** Seconds of CPU per second, while nothing but watermarks is asked. */
async function cost(system: System): Promise<{ identityCpu: number; redisCpu: number }> {
  await sleep(2000);
  const began = performance.now();
  const before = await readCpu(system);
  await sleep(idleMs);
  const after = await readCpu(system);
  const seconds = (performance.now() - began) / 1000;
  const used = (name: string) => ((after[name] ?? 0) - (before[name] ?? 0)) / seconds;
  return { identityCpu: used('identity'), redisCpu: used('redis') };
}

async function revocations({ admin }: System, fleet: readonly Gateway[], tenantId: string, count: number) {
  const latencies: number[] = [];
  let late = 0;
  let decisions = 0;
  for (let index = 0; index < count; index += 1) {
    const user = await admin.createUser(tenantId);
    const { id, key } = await admin.createKey(user.id);
    const request = { method: 'GET', path: '/', header: (name: string) => (name === 'x-api-key' ? [key] : []) };
    const ask = async (gateway: Gateway): Promise<RuledDecision['outcome']> => {
      decisions += 1;
      return (await gateway.decide(request)).outcome;
    };
    const warm = await Promise.all(fleet.map(ask));
    if (warm.some((outcome) => outcome !== 'allow')) throw new Error(`a good key is not accepted: ${warm.join(' ')}`);
    if (index % 2 === 0) await admin.revokeKey(id);
    else await admin.disableUser(user.id);
    const answeredAt = performance.now();
    let lastAcceptAt = answeredAt;
    let waiting = [...fleet];
    while (waiting.length > 0 && performance.now() - answeredAt < giveUpMs) {
      const startedAt = performance.now();
      const outcomes = await Promise.all(waiting.map(ask));
      waiting = waiting.filter((_gateway, place) => outcomes[place] !== 'deny');
      if (!outcomes.includes('allow')) continue;
      lastAcceptAt = performance.now();
      if (startedAt - answeredAt > boundMs) late += 1;
      await sleep(pollMs);
    }
    // And none accepts it again.
    const after = await Promise.all(fleet.map(ask));
    late += after.filter((outcome) => outcome === 'allow').length;
    latencies.push(lastAcceptAt - answeredAt);
  }
  return { latencies, late, decisions };
}
