/** What no exchange can do without, in a process of its own: one indexed SELECT, and one ES256 signature. */
import { generateKeyPairSync, sign } from 'node:crypto';
import postgres from 'postgres';

const [url = '', keys = '', seconds = '', concurrency = ''] = process.argv.slice(2);
const warmUpMs = 1000;
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const sql = postgres(url, { max: 10, fetch_types: false });
/** As long as the signing input of an internal token. */
const signingInput = Buffer.alloc(700, 'a');

async function once(): Promise<void> {
  const id = `${1 + Math.floor(Math.random() * Number(keys))}`.padStart(20, '0');
  const rows = await sql`select secret_sha256, user_id, revoked_seq from api_keys where id = ${id}`;
  const signature = sign('sha256', signingInput, { key: privateKey, dsaEncoding: 'ieee-p1363' });
  if (rows.length !== 1 || signature.length !== 64) throw new Error('no such key');
}

async function during(ms: number): Promise<number[]> {
  const latenciesMs: number[] = [];
  const until = performance.now() + ms;
  const loop = async () => {
    while (performance.now() < until) {
      const begin = performance.now();
      await once();
      latenciesMs.push(performance.now() - begin);
    }
  };
  await Promise.all(Array.from({ length: Number(concurrency) }, loop));
  return latenciesMs;
}

await during(warmUpMs);
const before = process.cpuUsage();
const latenciesMs = await during(Number(seconds) * 1000);
const { user, system } = process.cpuUsage(before);
console.log(
  JSON.stringify({ count: latenciesMs.length, latenciesMs, cpuMicros: (user + system) / latenciesMs.length }),
);
await sql.end();
