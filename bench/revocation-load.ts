/**
 * Revokes API keys at a steady rate, in a process of its own. It speaks HTTP/1.1 on open connections, one request at a time
 * on each, and reads no more of an answer than its status: a client should cost little beside what it measures.
 *
 *     node bench/revocation-load.ts HOST:PORT RATE WARM_UP_COUNT < admin key, then one key id a line
 *
 * The first are revoked at half the rate and not counted. Prints one line of JSON when every key was answered: how many, how
 * long the answers took, what failed.
 */
import { connect, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { summarize } from './statistics.ts';

const [address = '', rateText = '1000', warmUpText = '0'] = process.argv.slice(2);
const [host = '', port = ''] = address.split(':');
const [adminKey = '', ...keyIds] = (await text(process.stdin)).trim().split('\n');
const tickMs = 5;
const idle: Socket[] = [];

/** Resolves with the status. */
function revoke(keyId: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = idle.pop() ?? connect({ host, port: Number(port), noDelay: true });
    let head = '';
    socket.once('error', reject);
    socket.on('data', (chunk: Buffer) => {
      head += chunk.toString('latin1');
      const end = head.indexOf('\r\n\r\n');
      const length = /content-length: (\d+)/i.exec(head)?.[1];
      if (end < 0 || length === undefined || head.length < end + 4 + Number(length)) return;
      socket.removeAllListeners('data').removeAllListeners('error');
      socket.on('error', () => idle.splice(idle.indexOf(socket), 1));
      idle.push(socket);
      resolve(head.slice(9, 12));
    });
    socket.write(
      `POST /v1/api-keys/${keyId}/revoke HTTP/1.1\r\nhost: ${address}\r\nauthorization: Token ${adminKey}\r\ncontent-length: 0\r\n\r\n`,
    );
  });
}

async function run(ids: readonly string[], rate: number) {
  const latencies: number[] = [];
  const failures: Record<string, number> = {};
  const began = performance.now();
  const revoked: Promise<void>[] = [];
  const measured = async (keyId: string): Promise<void> => {
    const askedAt = performance.now();
    const status = await revoke(keyId).catch((error: Error) => error.message);
    if (status === '200') latencies.push(performance.now() - askedAt);
    else failures[status] = (failures[status] ?? 0) + 1;
  };
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const due = Math.min(ids.length, Math.floor(((performance.now() - began) / 1000) * rate));
      for (const keyId of ids.slice(revoked.length, due)) revoked.push(measured(keyId));
      if (revoked.length < ids.length) return;
      clearInterval(timer);
      resolve();
    }, tickMs);
  });
  const sentMs = performance.now() - began;
  await Promise.all(revoked);
  return {
    answered: latencies.length,
    sentMs,
    endedMs: performance.now() - began,
    answerMs: summarize(latencies),
    failures,
  };
}

process.once('disconnect', () => process.exit(1));
await run(keyIds.slice(0, Number(warmUpText)), Number(rateText) / 2);
process.send?.('warm');
const result = await run(keyIds.slice(Number(warmUpText)), Number(rateText));
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
