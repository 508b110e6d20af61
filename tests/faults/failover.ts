/** Postgres fails over, more than once where that is asked for, each time to a standby that lacks the newest commits. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Position } from '@token-gateway/revocation';
import postgres from 'postgres';
import type { PostgresPart } from '../parts/index.ts';
import { until } from '../system/service-process.ts';
import type { System } from '../system/system.ts';
import type { Fault } from './faults.ts';
import type { History } from './history.ts';
import type { Link } from './link.ts';

/** How long commits go on that the standby lacks. */
const lackMs = 1500;
/** For identity, which may have something else to bear. */
const commitMaxMs = 15_000;
const newEpochMaxMs = 30_000;

export interface Failover {
  readonly fault: Fault;
  /** Whichever is the primary at the moment. */
  readonly primary: PostgresPart;
}

export function failoverOf(
  system: Pick<System, 'postgres' | 'identityDatabaseUrl'>,
  links: ReadonlyMap<string, Link>,
  history: Pick<History, 'losses'>,
): Failover {
  let current = system.postgres;
  let url = system.identityDatabaseUrl;
  let epoch = 0;
  const primary = new Proxy(system.postgres, { get: (_first, name) => Reflect.get(current, name) });
  const fault: Fault = {
    name: 'failover to a standby that lacks commits of postgres',
    target: 'postgres',
    holdMs: 1500,
    isTelling: true,
    async inject() {
      const standby = await current.standby();
      await standby.detach();
      const { seq } = await headOf(url);
      await sleep(lackMs);
      await until('something is committed', commitMaxMs, async () => (await headOf(url)).seq > seq);
      await current.kill();
      const at = performance.now();
      await standby.promote();
      url = standby.urlOf(url);
      const kept = await headOf(url);
      history.losses.push({ at, ...kept });
      epoch = kept.epoch;
      current = standby;
      const { hostname: host, port } = new URL(url);
      for (const [link, path] of links) if (link.endsWith('>postgres')) path.redirect({ host, port: Number(port) });
    },
    heal: async () =>
      void (await until('identity begins a new epoch', newEpochMaxMs, async () => (await headOf(url)).epoch > epoch)),
  };
  return { fault, primary };
}

async function headOf(url: string): Promise<Position> {
  const sql = postgres(url, { max: 1 });
  try {
    const [row] = await sql<{ epoch: string; seq: string }[]>`select epoch, seq from log_head`;
    if (row === undefined) throw new Error('the change log has no head');
    return { epoch: Number(row.epoch), seq: Number(row.seq) };
  } finally {
    await sql.end({ timeout: 1 });
  }
}
