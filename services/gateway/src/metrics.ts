import type { Clock } from '@token-gateway/platform';
import type { Admission, Heard, RevocationView, UseCheck } from '@token-gateway/revocation';
import { Counter, Gauge, type Registry } from 'prom-client';
import type { DecisionSource, L2Read, Renewal } from './decision/decide.ts';
import type { Decision } from './decision/decision.ts';
import type { Limit } from './decision/failure-budget.ts';

interface Sources {
  readonly view: RevocationView;
  readonly clock: Clock;
  readonly grants: () => { readonly count: number; readonly bytes: number };
}

interface DecisionLabels {
  readonly source: DecisionSource;
  readonly outcome: Decision['outcome'];
  readonly code: string;
}

/** The gateway's metrics; reading them costs nothing in a request's way. */
export function createGatewayMetrics(registry: Registry, { view, clock, grants }: Sources) {
  const registers = [registry];
  /** Since they were last read, by code, which has one outcome: on the way of every request nothing more is done than to count. */
  const decided: Record<DecisionSource, Map<string, { readonly labels: DecisionLabels; count: number }>> = {
    request: new Map(),
    l1: new Map(),
    open: new Map(),
    negative: new Map(),
    l2: new Map(),
    exchange: new Map(),
  };
  new Counter({
    name: 'tg_gateway_decisions_total',
    help: 'Decisions by where they came from (`open`: L1, for what is open at the built-in reverse proxy), outcome and code.',
    labelNames: ['source', 'outcome', 'code'],
    registers,
    collect() {
      for (const entry of Object.values(decided).flatMap((byCode) => [...byCode.values()])) {
        this.inc(entry.labels, entry.count);
        entry.count = 0;
      }
    },
  });
  const ruled = new Counter({
    name: 'tg_gateway_rules_total',
    help: 'Requests that a rule let in as public, or refused whatever their credential was worth: `public`, or the code.',
    labelNames: ['outcome'],
    registers,
  });
  const unusable = new Counter({
    name: 'tg_gateway_cached_unusable_total',
    help: 'Cached decisions that were not used, by what the use-check said.',
    labelNames: ['check'],
    registers,
  });
  const admissions = new Counter({
    name: 'tg_gateway_grants_total',
    help: 'Grants of exchanges by what became of them on arrival.',
    labelNames: ['admission'],
    registers,
  });
  /** Since they were last read, as the decisions are. */
  const limited: Record<Limit, number> = { address: 0, issuer: 0 };
  new Counter({
    name: 'tg_gateway_limited_total',
    help: 'Unknown credentials that nobody was asked about, since too many of their address or issuer were none.',
    labelNames: ['limit'],
    registers,
    collect() {
      for (const limit of ['address', 'issuer'] as const) {
        this.inc({ limit }, limited[limit]);
        limited[limit] = 0;
      }
    },
  });
  const l2Reads = new Counter({
    name: 'tg_gateway_l2_reads_total',
    help: 'Reads of L2 by what they brought; `late` and `failed` are misses.',
    labelNames: ['result'],
    registers,
  });
  const renewals = new Counter({
    name: 'tg_gateway_renewals_total',
    help: 'Grants in use that neared their end, by what became of their renewal.',
    labelNames: ['result'],
    registers,
  });
  /** Since they were last read, as the decisions are. */
  const charges = { allowed: 0, refused: 0 };
  new Counter({
    name: 'tg_gateway_quota_total',
    help: 'Requests that were held against a quota, by whether there was room for them.',
    labelNames: ['outcome'],
    registers,
    collect() {
      for (const outcome of ['allowed', 'refused'] as const) {
        this.inc({ outcome }, charges[outcome]);
        charges[outcome] = 0;
      }
    },
  });
  const signals = new Counter({
    name: 'tg_gateway_signals_total',
    help: 'Changes heard, by trigger and by what became of them.',
    labelNames: ['trigger', 'result'],
    registers,
  });
  const purges = new Counter({
    name: 'tg_gateway_purged_entries_total',
    help: 'L1 entries that left because their L2 entry or key did.',
    labelNames: ['trigger'],
    registers,
  });
  const watermarks = new Counter({
    name: 'tg_gateway_watermarks_total',
    help: 'Watermark questions by outcome.',
    labelNames: ['outcome'],
    registers,
  });
  const missed = new Counter({
    name: 'tg_gateway_signals_missed_total',
    help: 'Changes that a watermark brought before any signal.',
    registers,
  });
  const mismatches = new Counter({
    name: 'tg_gateway_chain_mismatches_total',
    help: 'Watermarks that found the heard signals to disagree with the change log.',
    registers,
  });
  const connections = new Gauge({
    name: 'tg_gateway_signal_connected',
    help: '1 while the trigger is subscribed.',
    labelNames: ['trigger'],
    registers,
  });
  const heartbeatAge = new Gauge({
    name: 'tg_gateway_heartbeat_age_seconds',
    help: 'Age of the last heartbeat of the chain when it arrived.',
    labelNames: ['trigger'],
    registers,
  });
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  gauge('tg_gateway_freshness_age_seconds', 'How long ago the view was known to be complete.', () => {
    return view.freshnessAgeMs(clock.now()) / 1000;
  });
  gauge('tg_gateway_applied_seq', 'Newest change confirmed by identity.', () => view.applied);
  gauge('tg_gateway_heard_seq', 'Newest change heard without a gap.', () => view.heard);
  gauge('tg_gateway_tombstones', 'Subjects with a tombstone.', () => view.tombstoneCount);
  gauge('tg_gateway_l1_entries', 'Decisions in L1.', () => grants().count);
  gauge('tg_gateway_l1_bytes', 'Memory that L1 takes, as it is estimated for its bound.', () => grants().bytes);

  return {
    decision(source: DecisionSource, decision: Decision): void {
      const code = decision.outcome === 'allow' ? '' : decision.code;
      const known = decided[source].get(code);
      if (known !== undefined) known.count += 1;
      else decided[source].set(code, { labels: { source, outcome: decision.outcome, code }, count: 1 });
    },
    ruled(outcome: string): void {
      ruled.inc({ outcome });
    },
    unusable(check: UseCheck): void {
      unusable.inc({ check });
    },
    admission(admission: Admission): void {
      admissions.inc({ admission });
    },
    limited(limit: Limit): void {
      limited[limit] += 1;
    },
    charged(outcome: 'allowed' | 'refused'): void {
      charges[outcome] += 1;
    },
    l2Read(result: L2Read): void {
      l2Reads.inc({ result });
    },
    renewal(result: Renewal): void {
      renewals.inc({ result });
    },
    signal(trigger: string, result: Heard | 'malformed'): void {
      signals.inc({ trigger, result });
    },
    purged(trigger: string, count: number): void {
      if (count > 0) purges.inc({ trigger }, count);
    },
    watermark(outcome: string): void {
      watermarks.inc({ outcome });
    },
    missed(count: number, chainAgreed: boolean): void {
      missed.inc(count);
      if (!chainAgreed) mismatches.inc();
    },
    heartbeat(trigger: string, ageMs: number): void {
      heartbeatAge.set({ trigger }, ageMs / 1000);
    },
    connected(trigger: string, isConnected: boolean): void {
      connections.set({ trigger }, isConnected ? 1 : 0);
    },
  };
}
