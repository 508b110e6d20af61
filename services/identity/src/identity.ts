import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import {
  type AuditTrail,
  type Clock,
  createApiKey,
  type Database,
  type EventLog,
  type HttpApp,
  type IdentityClient,
  inTime,
  type Logger,
  noAuditTrail,
  parseApiKey,
  type RandomBytes,
  ServiceError,
  share,
  startPeriodic,
} from '@token-gateway/platform';
import { keySubject, tenantSubject, userSubject } from '@token-gateway/revocation';
import { eq } from 'drizzle-orm';
import { Counter, Gauge, type Registry } from 'prom-client';
import { publishExpiryNotices } from './keys/expiry-notices.ts';
import { LastUse } from './keys/last-use.ts';
import { HeadPublisher } from './log/heads.ts';
import { type Protocol, startProtocol } from './protocol.ts';
import { Receipts } from './receipts/receipts.ts';
import { createRestApp } from './rest/app.ts';
import { CallerReader, platformScope } from './rest/caller.ts';
import { createBoundReader } from './rest/context.ts';
import { pruneChanges, pruneRevocations } from './retention.ts';
import { receiveSignal } from './signals/receive.ts';
import { changesChannel, createDrizzleStore, type DrizzleStore } from './store/drizzle.ts';
import type { Fence } from './store/port.ts';
import { apiKeys, tenants, users } from './store/schema.ts';

export interface IdentityDeps {
  readonly database: Database;
  /** Absent where a deposed primary of the database is kept from answering by other means. */
  readonly fence?: Fence;
  /** Where changes are published; null = nowhere. */
  readonly eventLog: EventLog | null;
  /** Where reports about changes are published, so that no change waits for them; absent = where changes are. */
  readonly reportLog?: EventLog | null;
  /** Absent: nothing is audited. */
  readonly audit?: AuditTrail;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly registry: Registry;
  readonly random?: RandomBytes;
}

export interface IdentityConfig {
  /** Issuer of internal tokens, where its keys are, and the audience they must have to call the REST API. */
  readonly issuer: string;
  readonly jwksUrl: string;
  readonly audience: string;
  /** The first platform key; absent = one is made when there is no platform key at all. */
  readonly bootstrapAdminKey?: string;
  /** How long before the end of a key its notice is published; 0 or absent = none is. */
  readonly keyWarningMs?: number;
  /** How long ended sessions and tokens are kept, and how old a token may be; absent = for good, and any. */
  readonly revocationRetentionMs?: number;
  /** How long changes are kept; absent = for good. */
  readonly changeRetentionMs?: number;
}

export interface Identity {
  /** What the gRPC server exposes; called directly in the embedded system. */
  readonly client: IdentityClient;
  /** The REST API, not listening. */
  readonly app: HttpApp;
  /** Set when it was made just now: this is the only time it is shown. */
  readonly bootstrapAdminKey: string | null;
  /** Why it cannot answer at the moment; empty when it can. */
  ready(): Promise<string[]>;
  close(): Promise<void>;
}

const lastUseIntervalMs = 10_000;
const closeSaveMs = 1000;
const noticesIntervalMs = 60_000;
const retentionIntervalMs = 3_600_000;

const migrationsFolder = fileURLToPath(new URL('../migrations', import.meta.url));

/** Opens the database, mints an epoch where needed, and starts feeding and publishing changes. */
export async function createIdentity(deps: IdentityDeps, config: IdentityConfig): Promise<Identity> {
  const { database, eventLog, reportLog = eventLog, clock, logger, registry, random = randomBytes } = deps;
  const { drizzle } = database;
  await database.migrate(migrationsFolder);
  const store = createDrizzleStore({ database, clock, onCommitted: (rows) => protocol.feed.add(rows) });
  const head = await store.open();
  logger.info({ epoch: head.epoch, seq: head.seq }, 'change log opened');

  const receipts = new Receipts({ drizzle, eventLog: reportLog, clock, logger, registry });
  receipts.start();

  const fence = share(deps.fence ?? (async () => {}));
  const lastUse = new LastUse(clock);
  let leads = false;
  const metrics = createMetrics(registry, { newestSeq: () => protocol.feed.newest.seq, leads: () => leads });
  const protocol: Protocol = startProtocol(
    {
      store,
      fence,
      eventLog,
      clock,
      logger,
      random,
      revocationRetentionMs: config.revocationRetentionMs,
      onSignal: (signal) => receiveSignal({ store, clock, audit: deps.audit ?? noAuditTrail, ...config }, signal),
      onResolved({ outcome }) {
        metrics.resolves.inc({ outcome: outcome?.$case === 'refused' ? outcome.value.code : 'granted' });
        if (outcome?.$case === 'granted' && outcome.value.keyId !== '') lastUse.note(outcome.value.keyId);
      },
      onWatermark(request, at) {
        metrics.watermarks.inc();
        if (request.receipts !== undefined) receipts.note(request.receipts, at);
      },
      onTerm: (term) => {
        leads = term !== null;
      },
    },
    head,
  );
  const { client, feed, closing } = protocol;
  const headPublisher =
    reportLog === null ? null : new HeadPublisher({ store, feed, eventLog: reportLog, clock, logger });
  headPublisher?.start();
  const unlisten = await database.listen(changesChannel, (seq) => feed.nudge(Number(seq) || undefined));

  const callers = new CallerReader({ store, clock, onKeyUsed: (keyId) => lastUse.note(keyId) }, config);
  const app = await createRestApp(logger, {
    drizzle,
    store,
    clock,
    random,
    callers,
    readBound: createBoundReader(drizzle),
    fence,
    closing,
    audit: deps.audit ?? noAuditTrail,
  });
  const periodic = startWork();
  const bootstrapAdminKey = await bootstrap(deps, store, random, config.bootstrapAdminKey);

  /** What nobody waits for. */
  function startWork() {
    const { keyWarningMs = 0, revocationRetentionMs, changeRetentionMs } = config;
    const works = [
      {
        what: 'to store when keys were used',
        intervalMs: lastUseIntervalMs,
        work: () => lastUse.save(drizzle),
      },
      {
        what: 'to remove what is kept no longer',
        intervalMs: retentionIntervalMs,
        async work() {
          const nowMs = clock.now().wallMs;
          if (revocationRetentionMs !== undefined) await pruneRevocations(drizzle, revocationRetentionMs, nowMs);
          if (changeRetentionMs === undefined) return;
          await pruneChanges(drizzle, { retentionMs: changeRetentionMs, nowMs, isPublished: eventLog !== null });
        },
      },
    ];
    if (reportLog !== null && keyWarningMs > 0) {
      works.push({
        what: 'to tell of keys that expire soon',
        intervalMs: noticesIntervalMs,
        async work() {
          if (leads) await publishExpiryNotices({ drizzle, eventLog: reportLog, clock }, keyWarningMs);
        },
      });
    }
    return works.map((work) => startPeriodic({ clock, logger }, work));
  }

  return {
    client,
    app,
    bootstrapAdminKey,
    ready: () =>
      store.head().then(
        () =>
          fence().then(
            () => [],
            () => ['the synchronous standby of the database does not acknowledge'],
          ),
        () => ['the database does not answer'],
      ),
    async close() {
      // Whoever waits for a change to be effective is answered now.
      const ended = protocol.close();
      await app.close();
      await ended;
      await headPublisher?.close();
      await receipts.close();
      await Promise.all(periodic.map((work) => work.close()));
      // Of what was noted since the last turn; a database that is away keeps nobody here.
      await inTime(clock, closeSaveMs, lastUse.save(drizzle), () => {}).catch(() => {});
      await unlisten().catch(() => {});
    },
  };
}

function createMetrics(registry: Registry, { newestSeq, leads }: { newestSeq: () => number; leads: () => boolean }) {
  const registers = [registry];
  new Gauge({
    name: 'tg_identity_newest_seq',
    help: 'Newest change known to this replica.',
    registers,
    collect() {
      this.set(newestSeq());
    },
  });
  new Gauge({
    name: 'tg_identity_publisher_leader',
    help: '1 while this replica leads the publication of changes.',
    registers,
    collect() {
      this.set(leads() ? 1 : 0);
    },
  });
  return {
    resolves: new Counter({
      name: 'tg_identity_resolves_total',
      help: 'Resolve calls by outcome.',
      labelNames: ['outcome'],
      registers,
    }),
    watermarks: new Counter({ name: 'tg_identity_watermarks_total', help: 'Watermark calls.', registers }),
  };
}

/** The operators' tenant and user are the same in every database. */
const operators = { tenantId: `ten_${'0'.repeat(20)}`, userId: `usr_${'0'.repeat(20)}` };

/** The operators' tenant with one user and the first platform key; resolves with a key that was made just now. */
async function bootstrap(
  { clock, logger }: Pick<IdentityDeps, 'clock' | 'logger'>,
  store: DrizzleStore,
  random: RandomBytes,
  givenKey: string | undefined,
): Promise<string | null> {
  const given = givenKey === undefined ? null : parseApiKey(givenKey);
  if (givenKey !== undefined && given === null) {
    throw new ServiceError('request_invalid', { detail: 'the bootstrap admin key is not an API key (tgk_...)' });
  }
  const { tenantId, userId } = operators;
  return store.transaction(async (tx) => {
    const nowMs = clock.now().wallMs;
    const createdAt = new Date(nowMs);
    const tenant = { id: tenantId, slug: 'platform', name: 'Operators', tokenTtlSeconds: 300, maxStalenessMs: 1000 };
    // Replicas that start together take turns here.
    const first = await tx
      .insert(tenants)
      .values({ ...tenant, createdAt })
      .onConflictDoNothing()
      .returning({ id: tenants.id });
    if (first.length > 0) {
      const entitlements = [platformScope];
      await tx.insert(users).values({ id: userId, tenantId, displayName: 'bootstrap', entitlements, createdAt });
    } else if (given === null) return null;
    const { keyId, secretSha256, key } = given === null ? createApiKey(random, nowMs) : { ...given, key: null };
    const inserted = await tx
      .insert(apiKeys)
      .values({ id: keyId, tenantId, userId, name: 'bootstrap', secretSha256, scopes: [platformScope], createdAt })
      .onConflictDoNothing()
      .returning({ id: apiKeys.id });
    if (inserted.length === 0) {
      const [known] = await tx.select().from(apiKeys).where(eq(apiKeys.id, keyId));
      if (known?.secretSha256.equals(secretSha256) !== true) {
        throw new ServiceError('conflict', { detail: 'the bootstrap admin key has the id of another key' });
      }
      if (known.revokedSeq !== null) logger.warn({ keyId }, 'the bootstrap admin key was revoked, and stays so');
      return null;
    }
    await store.append(tx, {
      type: 'tg.key.created',
      subjects: [keySubject(keyId), userSubject(userId), tenantSubject(tenantId)],
      actor: 'system',
      details: { keyId, tenantId, userId, bootstrap: true },
    });
    return key;
  });
}
