/**
 * Checks the change log without trusting who keeps it.
 *
 *     npm run audit -- chain [--kafka HOST:PORT,...] [--file CHANGES.jsonl] [--database URL]
 *         each link of the hash chain; with several sources, that they hold the same history
 *     npm run audit -- heads (--kafka HOST:PORT,... | --file HEADS.jsonl) [--database URL] [--restored EPOCH]...
 *         heads published earlier against the log as it is now, in the database or else on the topic; an epoch that
 *         began with a restore may have replaced some
 *
 * Exits with 1 when anything disagrees. `-` as URL: from TG_DATABASE_URL.
 * @module
 */
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { createKafkaEventLog, createTelemetry, systemClock } from '@token-gateway/platform';
import {
  ChainCheck,
  changePayload,
  formatPosition,
  fromChangeEvent,
  type HeadFinding,
} from '@token-gateway/revocation';
import { type ChangeEvent, changesTopic, headsTopic, type LogHead } from '@token-gateway/schemas';
import { Kafka, logLevel } from 'kafkajs';
import postgres from 'postgres';

const usage = `npm run audit -- chain [--kafka HOST:PORT,...] [--file CHANGES.jsonl] [--database URL]
npm run audit -- heads (--kafka HOST:PORT,... | --file HEADS.jsonl) [--database URL] [--restored EPOCH]...`;
const batchSize = 1000;
const { logger } = createTelemetry({ service: 'audit', level: 'error' });

type OnRecord = (value: string, place: string) => void;
interface Source {
  readonly name: string;
  readonly check: ChainCheck;
}

/** Every record that the topic has at this moment. */
async function readTopic(brokers: string[], topic: string, onRecord: OnRecord): Promise<void> {
  const admin = new Kafka({ brokers, clientId: 'audit', logLevel: logLevel.NOTHING }).admin();
  await admin.connect();
  const [offsets] = await admin.fetchTopicOffsets(topic);
  await admin.disconnect();
  if (offsets === undefined || offsets.low === offsets.high) return;
  const log = createKafkaEventLog({ brokers, clientId: 'audit', logger, clock: systemClock });
  const isRead = Promise.withResolvers<void>();
  await log.consume({
    topic,
    from: 'oldest',
    async onRecords(records) {
      for (const { offset, value } of records) {
        if (BigInt(offset) < BigInt(offsets.high)) onRecord(value, `${topic} offset ${offset}`);
        if (BigInt(offset) + 1n >= BigInt(offsets.high)) isRead.resolve();
      }
    },
  });
  await isRead.promise;
  await log.close();
}

async function readFileLines(path: string, onRecord: OnRecord): Promise<void> {
  let number = 0;
  for await (const line of createInterface({ input: createReadStream(path) })) {
    number += 1;
    if (line.trim() !== '') onRecord(line, `${path} line ${number}`);
  }
}

function addEvent(check: ChainCheck, text: string, place: string): void {
  try {
    const change = fromChangeEvent(JSON.parse(text) as ChangeEvent);
    check.add({ ...change, payload: changePayload(change) });
  } catch {
    check.addMalformed(place);
  }
}

async function fromTopic(brokers: string[]): Promise<Source> {
  const check = new ChainCheck();
  await readTopic(brokers, changesTopic, (text, place) => addEvent(check, text, place));
  return { name: 'topic', check };
}

async function fromFile(path: string): Promise<Source> {
  const check = new ChainCheck();
  await readFileLines(path, (text, place) => addEvent(check, text, place));
  return { name: 'file', check };
}

/** The log and its head in one snapshot. */
async function fromDatabase(url: string): Promise<Source> {
  const check = new ChainCheck();
  const client = postgres(url, { max: 1, fetch_types: false, onnotice: () => {} });
  const place = (row: postgres.Row) => ({
    epoch: Number(row['epoch']),
    seq: Number(row['seq']),
    chain: String(row['chain']),
  });
  await client.begin('isolation level repeatable read read only', async (sql) => {
    const rows = sql`select epoch, seq, encode(chain, 'hex') as chain, payload from changes order by seq`;
    for await (const batch of rows.cursor(batchSize)) {
      for (const row of batch) check.add({ ...place(row), payload: String(row['payload']) });
    }
    const [head] = await sql`select epoch, seq, encode(chain, 'hex') as chain from log_head`;
    if (head !== undefined) check.addHead(place(head));
  });
  await client.end();
  return { name: 'database', check };
}

/** Says what a source holds; false when it disagrees with itself. */
function describe({ name, check }: Source): boolean {
  if (check.disagreement !== null) {
    console.log(`${name}: DISAGREES: ${check.disagreement}`);
    return false;
  }
  const { head, firstSeq, epochCount } = check;
  console.log(
    `${name}: changes ${firstSeq} to ${head.seq}, epochs with changes: ${epochCount}, head ${formatPosition(head)}, ` +
      `chain ${head.chain}: agrees`,
  );
  if (firstSeq > 1) console.log(`${name}: the beginning is not kept; the chain of change ${firstSeq} was believed`);
  return true;
}

/** The chain at the newest change that both have covers everything before. */
function describePair(one: Source, other: Source): boolean {
  const seq = Math.min(one.check.head.seq, other.check.head.seq);
  const [chain, otherChain] = [one.check.chainAt(seq), other.check.chainAt(seq)];
  const names = `${one.name} and ${other.name}`;
  if (chain === undefined || otherChain === undefined) {
    console.log(`${names}: have no change in common`);
    return true;
  }
  const isSame = chain === otherChain;
  console.log(`${names}: ${isSame ? 'the same history' : 'DISAGREE: different histories'} up to change ${seq}`);
  return isSame;
}

function auditChain(sources: readonly Source[]): boolean {
  const isEach = sources.map(describe).every(Boolean);
  const [first, ...rest] = sources;
  return isEach && first !== undefined && rest.map((other) => describePair(first, other)).every(Boolean);
}

function auditHeads(log: Source, heads: readonly LogHead[], restoredEpochs: readonly number[]): boolean {
  if (!describe(log)) return false;
  const counts: Record<HeadFinding, number> = { confirmed: 0, 'not-kept': 0, restored: 0, disagrees: 0 };
  for (const head of heads) {
    const finding = log.check.compare(head, restoredEpochs);
    counts[finding] += 1;
    if (finding === 'disagrees' && counts.disagrees === 1) {
      const now = log.check.chainAt(head.seq) ?? 'none';
      console.log(
        `heads: DISAGREES: ${formatPosition(head)} published at ${head.at} with chain ${head.chain}, now ${now}`,
      );
    }
  }
  const summary = Object.entries(counts).map(([finding, count]) => `${count} ${finding}`);
  console.log(`heads: ${heads.length} read: ${summary.join(', ')}`);
  return counts.disagrees === 0;
}

async function main(): Promise<boolean> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      kafka: { type: 'string' },
      file: { type: 'string' },
      database: { type: 'string' },
      restored: { type: 'string', multiple: true, default: [] },
    },
  });
  const brokers = values.kafka?.split(',');
  const { file } = values;
  const url = values.database === '-' ? process.env['TG_DATABASE_URL'] : values.database;
  const [command] = positionals;

  if (command === 'chain' && (brokers ?? file ?? url) !== undefined) {
    const sources: Source[] = [];
    if (brokers !== undefined) sources.push(await fromTopic(brokers));
    if (file !== undefined) sources.push(await fromFile(file));
    if (url !== undefined) sources.push(await fromDatabase(url));
    return auditChain(sources);
  }
  if (command === 'heads' && (file ?? brokers) !== undefined && (url ?? brokers) !== undefined) {
    const heads: LogHead[] = [];
    const onRecord: OnRecord = (text) => heads.push(JSON.parse(text) as LogHead);
    if (file !== undefined) await readFileLines(file, onRecord);
    else await readTopic(brokers ?? [], headsTopic, onRecord);
    const log = url === undefined ? await fromTopic(brokers ?? []) : await fromDatabase(url);
    return auditHeads(log, heads, values.restored.map(Number));
  }
  console.error(usage);
  return false;
}

const isAgreed = await main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  return false;
});
// A connection that was being used when something failed would keep the process.
process.exit(isAgreed ? 0 : 1);
