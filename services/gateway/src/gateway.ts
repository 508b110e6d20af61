import {
  type AuditTrail,
  type Clock,
  type IdentityClient,
  type Logger,
  noAuditTrail,
  type QuotaLedger,
  type SignalListener,
  type SignalSource,
  type SingleUse,
  type TokenCache,
} from '@token-gateway/platform';
import { type Change, type Learned, type Position, RevocationView } from '@token-gateway/revocation';
import type { Heartbeat } from '@token-gateway/schemas';
import type { Registry } from 'prom-client';
import { ConditionsChecker, type ConditionsConfig, defaultConditionsConfig } from './conditions/presentation.ts';
import { type CredentialConfig, defaultCredentialConfig } from './decision/credential.ts';
import { DecisionCore } from './decision/decide.ts';
import { DecisionAudit } from './decision-audit.ts';
import type { ExchangeClient } from './exchange-client/port.ts';
import { createGatewayMetrics } from './metrics.ts';
import { createDecideByQuota } from './quota/decide.ts';
import { QuotaMeter } from './quota/meter.ts';
import { createDecideByRules, type DecideByRules, noRules, type RuleSet } from './rules/rules.ts';
import { ProviderDirectory } from './view/provider-directory.ts';
import { ReceiptBook } from './view/receipts.ts';
import { WatermarkLoop } from './view/watermark-loop.ts';

export interface GatewayDeps {
  readonly identity: IdentityClient;
  readonly exchange: ExchangeClient;
  /** L2; null = none. */
  readonly tokenCache: TokenCache | null;
  /** DPoP proofs used at any gateway of the fleet; null = each knows its own only. */
  readonly usedProofs: SingleUse | null;
  /** What the gateways of a fleet let in together against quotas; null or absent = each counts for itself. */
  readonly quotaLedger?: QuotaLedger | null;
  readonly signals: readonly SignalSource[];
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  readonly logger: Logger;
  readonly registry: Registry;
  /** Absent: nothing is audited. */
  readonly audit?: AuditTrail;
  /** Those in force now; absent: none. */
  readonly rules?: () => RuleSet;
}

export interface GatewayConfig {
  /** The name of this process in receipts; absent = it reports none. */
  readonly id?: string;
  /** The audience of internal tokens when a route names none. */
  readonly audience: string;
  /** Shared by the gateways that share an L2; at least 32 bytes. */
  readonly fleetSecret: Uint8Array;
  readonly credential?: CredentialConfig;
  readonly conditions?: ConditionsConfig;
  /** The longest life of a cached decision. */
  readonly longestLifeMs?: number;
  readonly negativeLifeMs?: number;
  /** The longest time between two watermarks. */
  readonly watermarkIntervalMs?: number;
  /** What L1 may take of memory. */
  readonly cacheBytes?: number;
  /** After which a read of L2 is a miss. */
  readonly l2TimeoutMs?: number;
  readonly exchangesMax?: number;
}

export interface Gateway {
  readonly decide: DecideByRules;
  /** For requests that were let in, while they are open: as `decide`, but they are counted against nothing. */
  readonly decideAgain: DecideByRules;
  /** Subscribes, and asks for the first watermark; resolves at once. */
  start(): void;
  /** Up to where changes are confirmed and applied; epoch 0 before the first watermark. */
  applied(): Position;
  /** Why it is not ready yet; staleness is no reason, since a stale gateway still decides by exchange. */
  notReady(): string[];
  close(): Promise<void>;
}

const exchangeTimeoutMs = 1000;
const watermarkTimeoutMs = 1000;
const pruneIntervalMs = 5000;

/** The gateway without its transports and adapters: decides, and keeps its view of what was revoked. */
export function createGateway(deps: GatewayDeps, config: GatewayConfig): Gateway {
  const { identity, exchange, tokenCache, usedProofs, signals, clock, random, logger, registry } = deps;
  const longestLifeMs = config.longestLifeMs ?? 300_000;
  const exchangesMax = config.exchangesMax ?? 64;
  const view = new RevocationView({ longestLifeMs });
  const receipts = config.id === undefined ? null : new ReceiptBook(config.id);
  const providers = new ProviderDirectory({ identity, clock, logger }, config.credential ?? defaultCredentialConfig);
  const metrics = createGatewayMetrics(registry, {
    view,
    clock,
    grants: () => ({ count: core.grantCount, bytes: core.grantBytes }),
  });
  const audit = new DecisionAudit({ trail: deps.audit ?? noAuditTrail, clock });
  const closing = new AbortController();
  const unsubscribes: (() => Promise<void>)[] = [];
  let isStarted = false;

  const watermarks: WatermarkLoop = new WatermarkLoop(
    { identity, view, receipts, clock, random, logger, onLearned: learn, onFailed: () => metrics.watermark('failed') },
    { intervalMs: config.watermarkIntervalMs ?? 300, timeoutMs: watermarkTimeoutMs, longestLifeMs },
  );

  const conditions = new ConditionsChecker(
    { clock, usedProofs },
    config.conditions ?? defaultConditionsConfig,
    config.fleetSecret,
  );

  const core: DecisionCore = new DecisionCore(
    {
      view,
      providers,
      exchange,
      conditions,
      tokenCache,
      clock,
      random,
      logger,
      onMaxStaleness: (maxStalenessMs) => watermarks.noteMaxStaleness(maxStalenessMs),
      onSuspicion: () => watermarks.askSoon(),
      onDecision(source, decision) {
        metrics.decision(source, decision);
        audit.note(decision);
      },
      onUnusable: metrics.unusable,
      onAdmission: metrics.admission,
      onLimit: metrics.limited,
      onL2Read: metrics.l2Read,
      onRenewal: metrics.renewal,
    },
    {
      audience: config.audience,
      credential: config.credential ?? defaultCredentialConfig,
      fleetSecret: config.fleetSecret,
      longestLifeMs,
      negativeLifeMs: config.negativeLifeMs ?? 5000,
      exchangeTimeoutMs,
      cacheBytes: config.cacheBytes ?? 256 * 2 ** 20,
      l2TimeoutMs: config.l2TimeoutMs ?? 25,
      gate: {
        concurrencyMax: exchangesMax,
        queueMax: exchangesMax * 16,
        queueTimeoutMs: exchangeTimeoutMs,
      },
    },
  );

  const decideByRules = createDecideByRules({
    decide: (request, audience) => core.decide(request, audience),
    decideAnonymously: (request, audience) => core.decideAnonymously(request, audience),
    rules: deps.rules ?? (() => noRules),
    onRuled(decision) {
      metrics.ruled(decision.outcome === 'public' ? 'public' : decision.code);
      if (decision.outcome === 'deny') audit.note(decision);
    },
  });
  const meter = new QuotaMeter({ clock, ledger: deps.quotaLedger ?? null });
  const decide = createDecideByQuota({
    decide: decideByRules,
    meter,
    onCharged: metrics.charged,
    onRefused: (refusal) => audit.note(refusal),
  });

  function learn(learned: Learned): void {
    metrics.watermark(learned.outcome === 'ignored' ? learned.why : learned.outcome);
    if (learned.outcome === 'reset') {
      receipts?.noteReset(positionOf(view), clock.now());
      logger.info({ epoch: view.epoch, applied: view.applied, floor: view.floor }, 'view of revocations loaded');
      providers.refresh();
    }
    if (learned.outcome === 'fresh') {
      receipts?.noteApplied(positionOf(view), learned.changes, clock.now());
      if (!learned.chainAgreed) logger.warn('signals disagree with the change log: forged, corrupted or foreign');
      metrics.missed(learned.changes.length, learned.chainAgreed);
      for (const change of learned.changes) providers.note(change);
    }
  }

  function listenerOf(source: SignalSource): SignalListener {
    return {
      onChange(change: Change) {
        const now = clock.now();
        const heard = view.hear(change, now);
        if (heard === 'extended') receipts?.noteHeard(change, now);
        metrics.signal(source.name, heard);
        if (heard === 'extended') providers.note(change);
        const isUnsettled = heard === 'noted' || heard === 'chain-mismatch';
        if (isUnsettled || (heard === 'other-epoch' && change.epoch > view.epoch)) watermarks.askSoon();
      },
      onPurge(target) {
        metrics.purged(source.name, core.purge(target));
      },
      onHeartbeat(heartbeat: Heartbeat) {
        metrics.heartbeat(source.name, clock.now().wallMs - Date.parse(heartbeat.at));
      },
      onMalformed() {
        metrics.signal(source.name, 'malformed');
      },
      onConnected() {
        metrics.connected(source.name, true);
        watermarks.askSoon();
      },
      onDisconnected() {
        metrics.connected(source.name, false);
      },
    };
  }

  async function pruneLoop(): Promise<void> {
    while (!closing.signal.aborted) {
      await clock.sleep(pruneIntervalMs, closing.signal);
      view.prune(clock.now());
    }
  }

  return {
    decide,
    decideAgain: decideByRules,
    start() {
      if (isStarted) return;
      isStarted = true;
      for (const source of signals) unsubscribes.push(source.subscribe(listenerOf(source)));
      watermarks.start();
      pruneLoop().catch((error: unknown) => logger.error({ err: error }, 'pruning ended'));
    },
    applied: () => positionOf(view),
    notReady() {
      const missing = view.epoch === 0 ? ['no watermark yet'] : [];
      return providers.isRead ? missing : [...missing, 'no list of providers yet'];
    },
    async close() {
      closing.abort();
      watermarks.stop();
      meter.close();
      await Promise.all(unsubscribes.map((unsubscribe) => unsubscribe()));
      await providers.close();
      audit.flush();
    },
  };
}

function positionOf({ epoch, applied }: RevocationView): Position {
  return { epoch, seq: applied };
}
