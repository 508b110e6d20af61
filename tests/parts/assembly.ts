/** Servers, of whichever provider, as the parts that tests use. */
import { randomUUID } from 'node:crypto';
import postgres from 'postgres';
import { envoyAnswers, kafkaAnswers, postgresAnswers, redisAnswers } from './answers.ts';
import type { EnvoyPart, KafkaPart, PostgresPart, RedisPart } from './port.ts';
import { type Server, startPart } from './server.ts';
import { postgresUser } from './settings.ts';

export interface Address {
  readonly host: string;
  readonly port: number;
}

export async function startPostgres(server: Server, { host, port }: Address): Promise<PostgresPart> {
  const url = (database: string): string =>
    `postgres://${postgresUser.name}:${postgresUser.password}@${host}:${port}/${database}`;
  const part = await startPart('postgres', server, () => postgresAnswers(url('postgres')));
  return {
    ...part,
    async createDatabase() {
      const name = `test_${randomUUID().replaceAll('-', '')}`;
      const sql = postgres(url('postgres'), { max: 1 });
      await sql.unsafe(`create database ${name}`);
      await sql.end();
      return url(name);
    },
  };
}

export async function startKafka(server: Server, { host, port }: Address): Promise<KafkaPart> {
  const brokers = [`${host}:${port}`];
  return { ...(await startPart('kafka', server, () => kafkaAnswers(brokers))), brokers };
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
