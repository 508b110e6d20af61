import { connect } from 'node:net';
import { Kafka, logLevel } from 'kafkajs';
import postgres from 'postgres';

const timeoutMs = 2000;

/** Whether a part does its work: each asks the real thing over its protocol, and rejects where it does not answer. */

export async function postgresAnswers(url: string): Promise<void> {
  const sql = postgres(url, { max: 1, connect_timeout: timeoutMs / 1000, onnotice: () => {} });
  try {
    await sql`select 1`;
  } finally {
    await sql.end({ timeout: 0 });
  }
}

export async function redisAnswers(host: string, port: number): Promise<void> {
  const socket = connect({ host, port });
  socket.setTimeout(timeoutMs, () => socket.destroy(new Error(`no answer within ${timeoutMs} ms`)));
  try {
    socket.write('PING\r\n');
    const answer = await new Promise<string>((resolve, reject) => {
      socket.once('data', (data) => resolve(data.toString()));
      socket.once('error', reject);
      socket.once('close', () => reject(new Error('the connection was closed')));
    });
    if (answer !== '+PONG\r\n') throw new Error(`answered ${answer.trim()}`);
  } finally {
    socket.destroy();
  }
}

/** A broker that is still fenced by its controller is not in the metadata. */
export async function kafkaAnswers(brokers: readonly string[]): Promise<void> {
  const kafka = new Kafka({
    brokers: [...brokers],
    logLevel: logLevel.NOTHING,
    connectionTimeout: timeoutMs,
    requestTimeout: timeoutMs,
    retry: { retries: 0 },
  });
  const admin = kafka.admin();
  try {
    await admin.connect();
    const cluster = await admin.describeCluster();
    if (cluster.brokers.length === 0) throw new Error('no broker is active');
  } finally {
    await admin.disconnect();
  }
}

export async function keycloakAnswers(url: string): Promise<void> {
  const response = await fetch(`${url}/realms/master`, { signal: AbortSignal.timeout(timeoutMs) });
  await response.text();
  if (response.status !== 200) throw new Error(`answered ${response.status}`);
}

export async function envoyAnswers(adminUrl: string): Promise<void> {
  const response = await fetch(`${adminUrl}/ready`, { signal: AbortSignal.timeout(timeoutMs) });
  const text = await response.text();
  if (response.status !== 200) throw new Error(`not ready: ${text.trim()}`);
}
