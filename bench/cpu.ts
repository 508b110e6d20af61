/** Seconds of CPU that each process of a system has used: what its own metrics, and Redis, say. */
import { Redis } from 'ioredis';
import type { System } from '../tests/system/system.ts';

export type CpuSeconds = Readonly<Record<string, number>>;

export async function readCpu(system: System): Promise<CpuSeconds> {
  const services = system.processes.map(async ({ name, metricsUrl }) => {
    const metrics = await (await fetch(metricsUrl)).text();
    return [name, metricOf(metrics, 'process_cpu_seconds_total')] as const;
  });
  const used: Record<string, number> = Object.fromEntries(await Promise.all(services));
  if (system.redis !== null) {
    const redis = new Redis(system.redis.url);
    const info = await redis.info('cpu');
    redis.disconnect();
    used['redis'] = numberIn(info, /used_cpu_user:(\S+)/) + numberIn(info, /used_cpu_sys:(\S+)/);
  }
  return used;
}

/** The first value of that name in a page of metrics. */
export function metricOf(page: string, name: string): number {
  return numberIn(page, new RegExp(`^${name}(?:\\{.*\\})? (\\S+)`, 'm'));
}

function numberIn(text: string, pattern: RegExp): number {
  return Number(pattern.exec(text)?.[1] ?? Number.NaN);
}
