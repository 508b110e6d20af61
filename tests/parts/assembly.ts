/** Servers, of whichever provider, as the parts that tests use. */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { Kafka, logLevel } from 'kafkajs';
import postgres from 'postgres';
import { envoyAnswers, kafkaAnswers, keycloakAnswers, postgresAnswers, redisAnswers } from './answers.ts';
import type { Disk } from './disk.ts';
import type { EnvoyPart, KafkaPart, KeycloakPart, PostgresPart, RedisPart, StandbyPart } from './port.ts';
import { type Server, startPart } from './server.ts';
import { keycloakAdmin, postgresUser, standbyName } from './settings.ts';

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** A Postgres as its provider runs it. */
export interface PostgresServer extends Address {
  readonly server: Server;
  readonly disk: Disk | null;
  /** Another one, not started yet, that begins as a copy of this one, which has to run, and follows it. */
  copy(): Promise<PostgresServer>;
}

/** A server whose data are on a disk of its own, which goes with it. */
function onDisk(server: Server, disk: Disk | null): Server {
  if (disk === null) return server;
  return {
    ...server,
    async remove() {
      await server.remove();
      await disk.remove();
    },
  };
}

export async function startPostgres({ server, disk, host, port, copy }: PostgresServer): Promise<PostgresPart> {
  const url = (database: string): string =>
    `postgres://${postgresUser.name}:${postgresUser.password}@${host}:${port}/${database}`;
  const part = await startPart('postgres', onDisk(server, disk), () => postgresAnswers(url('postgres')));
  const standbys: StandbyPart[] = [];
  const stop = async (): Promise<void> => void (await Promise.all([part, ...standbys].map((each) => each.stop())));
  return {
    ...part,
    stop,
    [Symbol.asyncDispose]: stop,
    disk: disk && { fill: () => fillUnderPostgres(url('postgres'), disk), free: disk.free },
    async createDatabase() {
      const name = `test_${randomUUID().replaceAll('-', '')}`;
      const sql = postgres(url('postgres'), { max: 1 });
      await sql.unsafe(`create database ${name}`);
      await sql.end();
      return url(name);
    },
    async standby({ synchronous = false } = {}) {
      const sql = postgres(url('postgres'), { max: 1 });
      // A program runs in the folder of the data.
      const access = `select 'host replication all all scram-sha-256'`;
      await sql.unsafe(`copy (${access}) to program 'cat >> pg_hba.conf'`);
      await sql`select pg_reload_conf()`;
      const standby = await startStandby(await copy());
      standbys.push(standby);
      if (synchronous) {
        await sql.unsafe(`alter system set synchronous_standby_names = '${standbyName}'`);
        await sql`select pg_reload_conf()`;
      }
      const state = synchronous ? 'sync' : 'async';
      await untilTrue('it follows', async () => {
        const following = await sql`
          select from pg_stat_replication
          where application_name = ${standbyName} and state = 'streaming' and sync_state = ${state}`;
        return following.length > 0;
      });
      await sql.end();
      return standby;
    },
  };
}

async function startStandby(copied: PostgresServer): Promise<StandbyPart> {
  const part = await startPostgres(copied);
  const { host, port } = copied;
  const url = `postgres://${postgresUser.name}:${postgresUser.password}@${host}:${port}/postgres`;
  return {
    ...part,
    name: 'standby',
    urlOf(primaryUrl) {
      const own = new URL(primaryUrl);
      own.host = `${host}:${port}`;
      return own.href;
    },
    async detach() {
      const sql = postgres(url, { max: 1 });
      await sql.unsafe(`alter system set primary_conninfo = ''`);
      await sql`select pg_reload_conf()`;
      await untilTrue('it is detached', async () => (await sql`select from pg_stat_wal_receiver`).length === 0);
      await sql.end();
    },
    async promote() {
      const sql = postgres(url, { max: 1 });
      const [row] = await sql`select pg_promote() as is_promoted`;
      await sql.end();
      if (row?.['is_promoted'] !== true) throw new Error('the standby was not promoted');
    },
  };
}

async function untilTrue(what: string, condition: () => Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + 30_000;
  while (!(await condition())) {
    if (performance.now() > deadlineMs) throw new Error(`not within 30 s: ${what}`);
    await delay(20);
  }
}

/** Also the room that the server has set aside for its log. */
async function fillUnderPostgres(url: string, disk: Disk): Promise<void> {
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    for (;;) {
      await disk.fill();
      await sql`select pg_logical_emit_message(true, 'filler', repeat('x', 16000000))`;
    }
  } catch {
    // No room is left: it says so, or ended of it.
  } finally {
    await sql.end({ timeout: 0 });
  }
}

export async function startKafka(server: Server, { host, port }: Address, disk: Disk | null): Promise<KafkaPart> {
  const brokers = [`${host}:${port}`];
  return {
    ...(await startPart('kafka', onDisk(server, disk), () => kafkaAnswers(brokers))),
    brokers,
    disk: disk && { fill: () => fillUnderKafka(brokers, server, disk), free: disk.free },
  };
}

/** It ends as soon as it has something to write. */
async function fillUnderKafka(brokers: readonly string[], server: Server, disk: Disk): Promise<void> {
  const kafka = new Kafka({
    brokers: [...brokers],
    logLevel: logLevel.NOTHING,
    requestTimeout: 1000,
    retry: { retries: 0 },
  });
  const begin = performance.now();
  while (await server.running()) {
    if (performance.now() - begin > 30_000) throw new Error('kafka goes on without room on its disk');
    await disk.fill();
    const admin = kafka.admin();
    try {
      await admin.connect();
      await admin.createTopics({ topics: [{ topic: `filler-${randomUUID()}` }] });
    } catch {
      // It refuses, or has ended.
    } finally {
      await admin.disconnect().catch(() => {});
    }
  }
}

export async function startRedis(server: Server, { host, port }: Address): Promise<RedisPart> {
  const part = await startPart('redis', server, () => redisAnswers(host, port));
  return { ...part, url: `redis://${host}:${port}` };
}

export async function startEnvoy(server: Server, listener: Address, admin: Address): Promise<EnvoyPart> {
  const adminUrl = `http://${admin.host}:${admin.port}`;
  const part = await startPart('envoy', server, () => envoyAnswers(adminUrl));
  return { ...part, url: `http://${listener.host}:${listener.port}`, adminUrl };
}

export async function startKeycloak(server: Server, { host, port }: Address, hostname: string): Promise<KeycloakPart> {
  const url = `http://${host}:${port}`;
  const part = await startPart('keycloak', server, () => keycloakAnswers(url));
  const post = async (path: string, type: string, body: string, token = ''): Promise<string> => {
    const headers = { 'content-type': type, ...(token === '' ? {} : { authorization: `Bearer ${token}` }) };
    const response = await fetch(url + path, { method: 'POST', headers, body });
    const text = await response.text();
    if (!response.ok) throw new Error(`keycloak: ${path} ${response.status} ${text}`);
    return text;
  };
  return {
    ...part,
    url,
    hostname,
    async createRealm(realm) {
      const form = new URLSearchParams({ grant_type: 'password', client_id: 'admin-cli', ...keycloakAdmin });
      const path = '/realms/master/protocol/openid-connect/token';
      const answer = JSON.parse(await post(path, 'application/x-www-form-urlencoded', form.toString()));
      await post('/admin/realms', 'application/json', JSON.stringify(realm), answer['access_token']);
    },
  };
}
