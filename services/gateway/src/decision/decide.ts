/**
 * The order of a decision:
 *
 *   find the credential -> L1 -> use-check -> structure -> negative cache -> L2 -> exchange (single flight)
 *
 * Conditions of a grant are held against every use of it, wherever it comes from. The one that has to be waited for, that a
 * proof is used for the first time, is waited for before the use-check.
 *
 * A use of a grant that nears its end has it renewed meanwhile, by the same L2 and exchange.
 *
 * Whatever comes out of a cache passes the use-check, and whatever comes out of an exchange passes `admit`, in the same
 * synchronous step in which the decision is returned.
 */
import {
  type Clock,
  type ErrorCode,
  errorEntry,
  inTime,
  type Logger,
  ServiceError,
  type TokenCache,
  toServiceError,
} from '@token-gateway/platform';
import {
  type Admission,
  type Asked,
  ageMs,
  type CachedDecision,
  comparePositions,
  exchangeAgeBoundMs,
  type Instant,
  type RevocationView,
  type UseCheck,
} from '@token-gateway/revocation';
import { LRUCache } from 'lru-cache';
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { cacheKeyOf, cacheKeyOfOctets } from '../cache/cache-key.ts';
import { allowedBy, type Grant } from '../cache/grant.ts';
import { GrantCache } from '../cache/grant-cache.ts';
import { renewAtMs } from '../cache/renewal.ts';
import { Sealer } from '../cache/sealed.ts';
import { type Conditions, ConditionsSchema, isBound } from '../conditions/conditions.ts';
import type { ConditionsChecker, Presentation, Unmet } from '../conditions/presentation.ts';
import type { ExchangeClient, ExchangeResult } from '../exchange-client/port.ts';
import type { ProviderDirectory } from '../view/provider-directory.ts';
import {
  type CredentialConfig,
  checkStructure,
  type FoundCredential,
  findCredential,
  type GrantKind,
  isAll,
  isWellFormed,
  nobody,
} from './credential.ts';
import type { Decision, DecisionRequest } from './decision.ts';
import { ExchangeGate, type ExchangeGateConfig } from './exchange-gate.ts';
import { AskLimits, type Limit, sourceOf } from './failure-budget.ts';

export interface DecideConfig {
  /** The audience of internal tokens when the route names none. */
  readonly audience: string;
  readonly credential: CredentialConfig;
  /** Shared by the gateways that share an L2. */
  readonly fleetSecret: Uint8Array;
  readonly longestLifeMs: number;
  readonly negativeLifeMs: number;
  readonly exchangeTimeoutMs: number;
  readonly cacheBytes: number;
  /** After which a read of L2 is a miss. */
  readonly l2TimeoutMs: number;
  readonly gate: ExchangeGateConfig;
}

export interface DecideDeps {
  readonly view: RevocationView;
  readonly providers: Pick<ProviderDirectory, 'isCurrent' | 'isKnown' | 'isOpaqueToken'>;
  readonly exchange: ExchangeClient;
  readonly conditions: ConditionsChecker;
  /** L2; null = none. */
  readonly tokenCache: TokenCache | null;
  readonly clock: Clock;
  readonly random: () => number;
  readonly logger: Logger;
  readonly onMaxStaleness: (maxStalenessMs: number) => void;
  /** Something was seen that only a watermark can settle. */
  readonly onSuspicion: () => void;
  readonly onDecision: (source: DecisionSource, decision: Decision) => void;
  /** A cached decision was not used. */
  readonly onUnusable: (check: Exclude<UseCheck, 'usable'>) => void;
  /** What became of a grant when it arrived. */
  readonly onAdmission: (admission: Admission) => void;
  /** A credential was not asked about, since too much of the like was none. */
  readonly onLimit: (limit: Limit) => void;
  readonly onL2Read: (result: L2Read) => void;
  readonly onRenewal: (renewal: Renewal) => void;
}

export type L2Read = 'hit' | 'miss' | 'late' | 'failed' | 'unreadable';

/** What became of the renewal of a grant in use. */
export type Renewal = 'exchange' | 'l2' | 'under-way' | 'no-room' | 'refused' | 'not-admitted' | 'failed';

/** `open`: L1, for a request that is open already. */
export type DecisionSource = 'request' | 'l1' | 'open' | 'negative' | 'l2' | 'exchange';

interface Cache<T> {
  get(cacheKey: string): T | undefined;
  delete(cacheKey: string): boolean;
}

interface Refusal extends CachedDecision {
  readonly code: ErrorCode;
}

interface Credential {
  readonly kind: GrantKind;
  readonly value: string;
  readonly audience: string;
  readonly cacheKey: string;
  /** Whence it comes; empty = nobody knows. */
  readonly sourceAddress: string;
  /** It was let in before, and is open. */
  readonly isAgain: boolean;
}

interface PresentedCredential extends Credential {
  /** Whom it comes from, of one that nothing is known of here; null = nobody knows. */
  readonly source: string | null;
  /** What came with it. */
  readonly presented: Presentation;
}

/** One that nothing is known of here. */
interface AskedCredential extends PresentedCredential {
  /** Whose budget it is of. */
  readonly issuer: string;
}

interface Flight {
  /** What was known when it was asked; moved on when it had to wait for room, since then it has not asked before. */
  readonly asked: () => Asked;
  readonly result: Promise<ExchangeResult>;
  /** Whom those come from who wait for it. */
  readonly sources: Set<string | null>;
}

/** What refusals, and the list of those in good standing, may take beside the grants: garbage pushes out no grant. */
const besideShare = 1 / 16;
/** A cache key with its place and, of a refusal, its objects; measured. */
const standingBytes = 176;
const refusalBytes = 440;
const refusalSubjectBytes = 48;

/** Used for refusals, whose tenant need not be known; a refusal is never unsafe to repeat. */
const refusalMaxStalenessMs = 1000;
/**
 * A request joins a flight only this long after it began, when nothing is known of the credential, so that it does not
 * inherit most of the age bound; and a slow auth server gets at most one more exchange per credential, not one per
 * request.
 */
const joinWithinMs = 500;
/** A token leaves the caches this long before its end, or at a tenth of its life, so that it reaches a service in time. */
const tokenMarginMs = 5000;
const retryAfterMaxSeconds = 3;
/** A renewal that brought nothing is tried again after so long, or up to twice that. */
const renewAgainMs = 1000;
/** One that brought less is the last: of a token that ends at a fixed moment, only what it leaves the caches before becomes less. */
const renewalGainMinMs = tokenMarginMs;

const l2Value = Compile(
  Type.Object({
    kind: Type.Union([Type.Literal('api-key'), Type.Literal('jwt'), Type.Literal('anonymous')]),
    token: Type.String({ minLength: 1 }),
    subjects: Type.Array(Type.String()),
    maxStalenessMs: Type.Integer({ minimum: 0 }),
    expiresAtMs: Type.Number(),
    conditions: Type.Union([ConditionsSchema, Type.Null()]),
  }),
);

export class DecisionCore {
  readonly #deps: DecideDeps;
  readonly #config: DecideConfig;
  readonly #gate: ExchangeGate;
  readonly #sealer: Sealer;
  readonly #grants: GrantCache;
  readonly #refusals: LRUCache<string, Refusal>;
  /** Credentials accepted lately with their tenants' bounds, whatever became of their entries. */
  readonly #standing: LRUCache<string, number>;
  readonly #flights = new Map<string, Flight>();
  readonly #limits: AskLimits;
  readonly #reads = new Map<string, Promise<Grant | null>>();
  #largestMaxStalenessMs = refusalMaxStalenessMs;

  constructor(deps: DecideDeps, config: DecideConfig) {
    this.#deps = deps;
    this.#config = config;
    this.#gate = new ExchangeGate(deps.clock, config.gate);
    // A grant in use is renewed once in a life of it.
    this.#limits = new AskLimits(2 * config.longestLifeMs);
    this.#sealer = new Sealer(config.fleetSecret);
    this.#grants = new GrantCache(config.cacheBytes);
    const besideBytes = Math.ceil(config.cacheBytes * besideShare);
    this.#refusals = new LRUCache<string, Refusal>({
      maxSize: besideBytes,
      sizeCalculation: ({ subjects }) =>
        subjects.reduce((sum, { length }) => sum + refusalSubjectBytes + length, refusalBytes),
    });
    this.#standing = new LRUCache<string, number>({ max: Math.ceil(besideBytes / standingBytes) });
  }

  get grantCount(): number {
    return this.#grants.size;
  }

  get grantBytes(): number {
    return this.#grants.bytes;
  }

  get exchangesUnderWay(): number {
    return this.#gate.running;
  }

  /** Never throws and never rejects: what goes wrong is `unavailable`. */
  decide(request: DecisionRequest, audience = this.#config.audience): Decision | Promise<Decision> {
    try {
      const plain = request.plainCredential?.() ?? null;
      const plainKey = plain === null ? null : cacheKeyOfOctets(plain.kind, audience, plain);
      const early = plainKey === null ? null : this.#decideOfOctets(plainKey, request);
      if (early !== null) return early;
      const found = findCredential((name) => request.header(name), this.#config.credential);
      if ('refused' in found) return this.#report('request', { outcome: 'deny', code: found.refused });
      const cacheKey = plain !== null && plainKey !== null && isAll(found, plain) ? plainKey : undefined;
      return this.#decide(found, request, audience, cacheKey);
    } catch (error) {
      return this.#report('request', this.#unavailable(error));
    }
  }

  /** For a request that needs no credential: a token of the gateway's own client, by the same caches and the same protocol. */
  decideAnonymously(request: DecisionRequest, audience = this.#config.audience): Decision | Promise<Decision> {
    try {
      return this.#decide(nobody, request, audience);
    } catch (error) {
      return this.#report('request', this.#unavailable(error));
    }
  }

  /** Null for whatever more has to be known of. No text is made of a credential: neither of a hit, nor of a flood. */
  #decideOfOctets(cacheKey: string, request: DecisionRequest): Decision | null {
    const grant = this.#grants.get(cacheKey);
    const now = this.#deps.clock.now();
    if (grant === undefined) {
      const source = sourceOf(request.sourceAddress ?? '');
      return this.#isSourceSpent(source, cacheKey, now) ? this.#notAsked('address') : null;
    }
    if (isBound(grant.conditions)) return null;
    if (now.monotonicMs >= grant.renewAtMs || this.#deps.view.check(grant, now) !== 'usable') return null;
    return this.#report('l1', grant.decision);
  }

  #decide(
    found: FoundCredential,
    request: DecisionRequest,
    audience: string,
    cacheKey = cacheKeyOf(found.kind, audience, found.value),
  ): Decision | Promise<Decision> {
    const now = this.#deps.clock.now();
    const grant = this.#take(this.#grants, cacheKey, now);
    const { kind, value, scheme } = found;
    const { isAgain = false, sourceAddress = '' } = request;
    const plain = { kind, value, audience, cacheKey, isAgain, sourceAddress };
    if (grant !== null && scheme !== 'dpop' && !isBound(grant.conditions)) return this.#use(plain, grant, now);
    const isAnonymous = kind === 'anonymous';
    if (grant === null && !isAnonymous && !isWellFormed(value))
      return this.#report('request', { outcome: 'deny', code: 'credential_malformed' });
    const source = grant === null && !isAnonymous ? sourceOf(sourceAddress) : null;
    if (grant === null && this.#isSourceSpent(source, cacheKey, now)) return this.#notAsked('address');
    const present = () => this.#deps.conditions.present(request, found);
    const presented = request.presented?.orElse(present) ?? present();
    const credential = { ...plain, source, presented };
    const decision = grant === null ? this.#miss(credential, now) : this.#hit(credential, grant, now);
    if (!(decision instanceof Promise)) return decision;
    return decision.catch((error: unknown) => this.#report('exchange', this.#unavailable(error)));
  }

  /** What left L2, or ended by time, leaves L1. */
  purge(target: { readonly cacheKey: string } | { readonly subject: string }): number {
    if ('cacheKey' in target) return this.#grants.delete(target.cacheKey) ? 1 : 0;
    return this.#grants.deleteBySubject(target.subject);
  }

  /** An entry that passes the use-check now, which every use of a cached decision goes through. */
  #take<T extends CachedDecision>(cache: Cache<T>, cacheKey: string, now: Instant): T | null {
    const entry = cache.get(cacheKey);
    if (entry === undefined) return null;
    const check = this.#deps.view.check(entry, now);
    if (check === 'usable') return entry;
    this.#deps.onUnusable(check);
    // A stale view may become fresh again; nothing else mends an entry.
    if (check !== 'stale') cache.delete(cacheKey);
    return null;
  }

  /** An entry of L1 that passed the use-check now. */
  #hit(credential: PresentedCredential, grant: Grant, now: Instant): Decision | Promise<Decision> {
    const unmet = credential.presented.unmet(grant.conditions, now);
    if (unmet !== null) return this.#report('l1', unmet);
    if (!credential.presented.isSettled) return this.#claimed(credential);
    return this.#use(credential, grant, now);
  }

  /** An entry whose conditions are met. */
  #use(credential: Credential, grant: Grant, now: Instant): Decision {
    if (now.monotonicMs >= grant.renewAtMs) this.#renew(credential, grant, now);
    return this.#report(credential.isAgain ? 'open' : 'l1', grant.decision);
  }

  /** After the proof was claimed, which took time, the entry is looked for again. */
  async #claimed(credential: PresentedCredential): Promise<Decision> {
    const unmet = await credential.presented.claim();
    if (unmet !== null) return this.#report('l1', unmet);
    const now = this.#deps.clock.now();
    const grant = this.#take(this.#grants, credential.cacheKey, now);
    return grant === null ? this.#miss(credential, now) : this.#hit(credential, grant, now);
  }

  /** Null when the conditions are met. Waits for a proof to be claimed, and for nothing else. */
  #meet({ presented }: PresentedCredential, conditions: Conditions | null): Unmet | null | Promise<Unmet | null> {
    const unmet = presented.unmet(conditions, this.#deps.clock.now());
    return unmet !== null || presented.isSettled ? unmet : presented.claim();
  }

  /** Synchronous as long as nobody is asked, so that a flood costs as little as it can. */
  #miss(credential: PresentedCredential, now: Instant): Decision | Promise<Decision> {
    const structure = this.#checkStructure(credential, now);
    if ('outcome' in structure) return this.#report('request', structure);
    const refusal = this.#take(this.#refusals, credential.cacheKey, now);
    if (refusal !== null) {
      const { code, subjects } = refusal;
      return this.#report('negative', { outcome: 'deny', code, subjects });
    }
    return this.#ask({ ...credential, issuer: structure.issuer }, now);
  }

  /** Who comes with what is asked about already costs nobody anything. */
  #ask(credential: AskedCredential, now: Instant): Decision | Promise<Decision> {
    const { source, issuer, cacheKey } = credential;
    if (this.#isUnderWay(cacheKey, now)) return this.#answer(credential);
    if (!this.#limits.isIssuerLeft(issuer, source, now.monotonicMs) && !this.#standing.has(cacheKey))
      return this.#notAsked('issuer');
    const end = this.#limits.ask(source, issuer, now.monotonicMs);
    return this.#answerOf(credential).finally(end);
  }

  async #answerOf(credential: AskedCredential): Promise<Decision> {
    const decision = await this.#answer(credential);
    if (decision.outcome === 'allow') this.#limits.trust(credential.source, this.#deps.clock.now().monotonicMs);
    return decision;
  }

  /** Whoever knows of it. */
  async #answer(credential: AskedCredential): Promise<Decision> {
    const fromL2 = await this.#fromL2(credential);
    const decision = fromL2 ?? (await this.#fromExchange(credential));
    return this.#report(fromL2 === null ? 'exchange' : 'l2', decision);
  }

  #isUnderWay(cacheKey: string, now: Instant): boolean {
    return this.#reads.has(cacheKey) || this.#flightOf(cacheKey, now) !== null;
  }

  #isSourceSpent(source: string | null, cacheKey: string, now: Instant): boolean {
    if (this.#limits.isSourceLeft(source, now.monotonicMs)) return false;
    return !this.#standing.has(cacheKey) && !this.#isUnderWay(cacheKey, now);
  }

  #notAsked(limit: Limit): Decision {
    this.#deps.onLimit(limit);
    return this.#report('request', this.#later('overloaded'));
  }

  /** A refusal, or the issuer whose credential it would be. */
  #checkStructure(credential: Credential, now: Instant): Decision | { readonly issuer: string } {
    if (credential.kind === 'anonymous') return { issuer: 'anonymous' };
    // What begins like no provider's is garbage until the list says otherwise: nobody could be asked about it.
    if (credential.kind === 'jwt' && this.#deps.providers.isOpaqueToken(credential.value)) return { issuer: 'opaque' };
    const structure = checkStructure(
      credential.kind,
      credential.value,
      now.wallMs,
      this.#config.credential.importedKeyPrefixes,
    );
    if ('refused' in structure) return { outcome: 'deny', code: structure.refused };
    if (structure.kind !== 'jwt') return { issuer: 'keys' };
    if (this.#deps.providers.isKnown(structure.issuer)) return { issuer: `iss ${structure.issuer}` };
    return this.#knowsAllProviders(now) ? { outcome: 'deny', code: 'token_issuer_unknown' } : { issuer: 'unknown' };
  }

  /** Else an issuer that is not on the list may be that of a provider just made, which the auth server knows by now. */
  #knowsAllProviders(now: Instant): boolean {
    return this.#deps.providers.isCurrent && this.#deps.view.freshnessAgeMs(now) < refusalMaxStalenessMs;
  }

  async #fromL2(credential: PresentedCredential): Promise<Decision | null> {
    const { view, clock } = this.#deps;
    if (view.freshnessAgeMs(clock.now()) > this.#largestMaxStalenessMs) return null;
    const read = await this.#readL2(credential);
    if (read === null) return null;
    const meeting = this.#meet(credential, read.conditions);
    const unmet = meeting instanceof Promise ? await meeting : meeting;
    const now = clock.now();
    const known = this.#grants.get(credential.cacheKey);
    // The read may have been slow, and something newer filled meanwhile.
    if (known === undefined || comparePositions(known.asOf, read.asOf) < 0) this.#keep(credential.cacheKey, read);
    const grant = this.#take(this.#grants, credential.cacheKey, now);
    if (grant === null) return null;
    this.#standing.set(credential.cacheKey, grant.maxStalenessMs);
    // What was filled meanwhile may have other conditions.
    return unmet ?? credential.presented.unmet(grant.conditions, now) ?? grant.decision;
  }

  /** A result that something overtook, or that came too late, is asked for once more. */
  async #fromExchange(credential: AskedCredential): Promise<Decision> {
    for (let attempt = 1; attempt <= 2; attempt++) {
      const flight = this.#join(credential);
      const result = await flight.result;
      const meeting = result.outcome === 'granted' ? this.#meet(credential, result.conditions) : null;
      const unmet = meeting instanceof Promise ? await meeting : meeting;
      const decision = this.#settle(credential, flight, result);
      if (decision?.outcome === 'allow' && unmet !== null) return unmet;
      if (decision !== null) return decision;
    }
    return this.#unavailable(new ServiceError('decision_unavailable', { detail: 'twice overtaken, or too late' }));
  }

  /** One read for all that ask at the same time; what comes too late is a miss. */
  #readL2(credential: Credential): Promise<Grant | null> {
    const known = this.#reads.get(credential.cacheKey);
    if (known !== undefined) return known;
    const read = this.#openL2(credential).finally(() => this.#reads.delete(credential.cacheKey));
    this.#reads.set(credential.cacheKey, read);
    return read;
  }

  async #openL2(credential: Credential): Promise<Grant | null> {
    const { tokenCache, clock, random, onL2Read } = this.#deps;
    if (tokenCache === null) return null;
    const reading = tokenCache.get(credential.cacheKey).catch(() => 'failed' as const);
    const sealed = await inTime(clock, this.#config.l2TimeoutMs, reading, () => 'late' as const);
    if (sealed === null || sealed === 'late' || sealed === 'failed') {
      onL2Read(sealed ?? 'miss');
      return null;
    }
    const opened = this.#sealer.open(sealContext(credential), sealed);
    const value: unknown = opened === null ? null : JSON.parse(opened.plaintext);
    if (opened === null || !l2Value.Check(value) || value.kind !== credential.kind) {
      onL2Read('unreadable');
      return null;
    }
    onL2Read('hit');
    const { kind, token, expiresAtMs, ...facts } = value;
    const now = clock.now();
    const expiresAt = instantOfWall(expiresAtMs, now);
    return {
      ...facts,
      asOf: opened.asOf,
      expiresAt,
      renewAtMs: renewAtMs(now, expiresAt, random()),
      decision: allowedBy(kind, token, facts.conditions),
    };
  }

  #join(credential: AskedCredential): Flight {
    const { source, issuer, cacheKey, isAgain } = credential;
    const { clock } = this.#deps;
    const known = this.#flightOf(cacheKey, clock.now());
    if (known !== null) {
      known.sources.add(source);
      return known;
    }
    const sources = new Set([source]);
    const isGivenUp = () => this.#isGivenUp(cacheKey, issuer, sources);
    if (isGivenUp()) throw new ServiceError('overloaded');
    const isInGoodStanding = this.#standing.has(cacheKey);
    const { asked, task } = this.#question(credential);
    const answer = isAgain ? this.#gate.runInSpareRoom(task) : this.#gate.run(isInGoodStanding, task, isGivenUp);
    // An open request can wait, and there may be many.
    if (answer === null) throw new ServiceError('overloaded');
    const charge = (result: ExchangeResult) => {
      // What was good until now is not made up.
      if (isInGoodStanding || !this.#isNone(result, asked())) return;
      const { monotonicMs } = clock.now();
      // Where it is spent itself, the exchange was made for another.
      const payer = [...sources].find((each) => this.#limits.spent(each, issuer, monotonicMs) === null) ?? source;
      this.#limits.charge(payer, issuer, monotonicMs);
    };
    answer.then(charge, () => undefined);
    return this.#fly(credential, asked, answer, sources);
  }

  /** One that can be joined: half of the age bound of what is known of the credential, so that a waiter still has the other half. */
  #flightOf(cacheKey: string, now: Instant): Flight | null {
    const flight = this.#flights.get(cacheKey);
    if (flight === undefined) return null;
    const maxStalenessMs = this.#standing.get(cacheKey);
    const withinMs = maxStalenessMs === undefined ? joinWithinMs : exchangeAgeBoundMs(maxStalenessMs) / 2;
    return ageMs(flight.asked().askedAt, now) < withinMs ? flight : null;
  }

  /** Whether so much of the like was none meanwhile that nobody who waits for it should have it asked about. */
  #isGivenUp(cacheKey: string, issuer: string, sources: ReadonlySet<string | null>): boolean {
    if (this.#standing.has(cacheKey)) return false;
    const { monotonicMs } = this.#deps.clock.now();
    let spent: Limit | null = null;
    for (const source of sources) {
      spent = this.#limits.spent(source, issuer, monotonicMs);
      if (spent === null) return false;
    }
    if (spent !== null) this.#deps.onLimit(spent);
    return true;
  }

  /** Whether an answer says that a credential is none, and nothing has overtaken it. */
  #isNone(result: ExchangeResult, asked: Asked): boolean {
    // A good one may give no access to this.
    if (result.outcome === 'granted' || errorEntry(result.code).http === 403) return false;
    return result.facts === null || !this.#deps.view.isOvertaken(result.facts, asked);
  }

  #question({ kind, value, audience }: Credential) {
    const { view, clock, exchange } = this.#deps;
    let asked = view.asking(clock.now());
    const task = () => {
      asked = view.asking(clock.now());
      return exchange.exchange({ kind, credential: value, audience }, { timeoutMs: this.#config.exchangeTimeoutMs });
    };
    return { asked: () => asked, task };
  }

  #fly(
    credential: Credential,
    asked: () => Asked,
    result: Promise<ExchangeResult>,
    sources = new Set<string | null>(),
  ): Flight {
    const flight = { asked, result, sources };
    const land = () => this.#land(credential, flight);
    result.then(land, land);
    this.#flights.set(credential.cacheKey, flight);
    return flight;
  }

  /**
   * Has a grant in use renewed before its end, behind whoever waits for an exchange, so that nobody will have to. It is looked
   * for in L2 first, since another gateway may have renewed it. What an exchange says passes `admit` as ever.
   */
  #renew(credential: Credential, grant: Grant, now: Instant): void {
    const { random, onRenewal } = this.#deps;
    grant.renewAtMs = now.monotonicMs + renewAgainMs * (1 + random());
    const renewed = (renewal: Renewal) => {
      // Anybody may come without a credential.
      const isGood = credential.kind !== 'anonymous' && (renewal === 'exchange' || renewal === 'l2');
      if (isGood) this.#limits.trust(sourceOf(credential.sourceAddress), this.#deps.clock.now().monotonicMs);
      onRenewal(renewal);
    };
    this.#renewed(credential, grant).then(renewed, () => onRenewal('failed'));
  }

  async #renewed(credential: Credential, grant: Grant): Promise<Renewal> {
    const endedAtMs = grant.expiresAt.wallMs;
    const read = await this.#readL2(credential);
    // Meanwhile something newer than what it began from may have come in.
    if (read !== null && this.#isSuccessor(read, this.#grants.get(credential.cacheKey) ?? grant)) {
      this.#keep(credential.cacheKey, read);
      return 'l2';
    }
    if (this.#flights.has(credential.cacheKey)) return 'under-way';
    const { asked, task } = this.#question(credential);
    const answer = this.#gate.runInSpareRoom(task);
    if (answer === null) return 'no-room';
    const flight = this.#fly(credential, asked, answer);
    const result = await flight.result;
    const decision = this.#settle(credential, flight, result);
    if (decision?.outcome === 'deny') this.#drop(credential, grant);
    if (decision?.outcome !== 'allow') return result.outcome === 'refused' ? 'refused' : 'not-admitted';
    const renewed = this.#grants.get(credential.cacheKey);
    // It ends when the credential does.
    if (renewed !== undefined && renewed.expiresAt.wallMs - endedAtMs < renewalGainMinMs)
      renewed.renewAtMs = renewed.expiresAt.monotonicMs;
    return 'exchange';
  }

  #isSuccessor(read: Grant, grant: Grant): boolean {
    const isLater = read.expiresAt.wallMs > grant.expiresAt.wallMs && comparePositions(read.asOf, grant.asOf) >= 0;
    return isLater && this.#deps.view.check(read, this.#deps.clock.now()) === 'usable';
  }

  /** Refused before its end, it is used no more, here or from L2. */
  #drop({ cacheKey }: Credential, { subjects, decision }: Grant): void {
    if (this.#grants.get(cacheKey)?.decision.token !== decision.token) return;
    this.#grants.delete(cacheKey);
    const own = subjects.filter((subject) => subject.startsWith('key:') || subject.startsWith('credential:'));
    this.#deps.tokenCache?.removeBySubjects(own).catch(() => undefined);
  }

  /** Nobody joins what has an answer. */
  #land(credential: Credential, flight: Flight): void {
    if (this.#flights.get(credential.cacheKey) === flight) this.#flights.delete(credential.cacheKey);
  }

  /** Null when the result has to be asked for again. */
  #settle(credential: Credential, flight: Flight, result: ExchangeResult): Decision | null {
    const { view, clock, onSuspicion } = this.#deps;
    const now = clock.now();
    if (result.facts !== null && result.facts.asOf.epoch !== view.epoch) onSuspicion();
    if (result.outcome === 'refused') {
      if (result.facts !== null) {
        if (view.isOvertaken(result.facts, flight.asked())) return null;
        const expiresAt = later(flight.asked().askedAt, this.#config.negativeLifeMs);
        const refusal = { ...result.facts, maxStalenessMs: refusalMaxStalenessMs, code: result.code, expiresAt };
        this.#refusals.set(credential.cacheKey, refusal);
      }
      this.#standing.delete(credential.cacheKey);
      return { outcome: 'deny', code: result.code, subjects: result.facts?.subjects ?? [] };
    }
    this.#noteMaxStaleness(result.facts.maxStalenessMs);
    const admission = view.admit(result.facts, flight.asked(), now);
    this.#deps.onAdmission(admission);
    switch (admission) {
      case 'tombstoned':
      case 'replaced-epoch':
      case 'too-old':
        return null;
      case 'usable-once':
        this.#standing.set(credential.cacheKey, result.facts.maxStalenessMs);
        return allowedBy(credential.kind, result.token, result.conditions);
      case 'cacheable': {
        const grant = this.#grantOf(credential, flight, result, now);
        if (this.#grants.get(credential.cacheKey)?.decision.token !== grant.decision.token)
          this.#fill(credential, grant, now);
        return grant.decision;
      }
    }
  }

  #grantOf(
    credential: Credential,
    flight: Flight,
    result: ExchangeResult & { outcome: 'granted' },
    now: Instant,
  ): Grant {
    const remainingMs = result.tokenExpiresAtMs - flight.asked().askedAt.wallMs;
    const endMs = result.tokenExpiresAtMs - Math.min(tokenMarginMs, remainingMs / 10);
    const lifeEnd = later(flight.asked().askedAt, this.#config.longestLifeMs);
    const tokenEnd = instantOfWall(endMs, now);
    const expiresAt = {
      monotonicMs: Math.min(lifeEnd.monotonicMs, tokenEnd.monotonicMs),
      wallMs: Math.min(lifeEnd.wallMs, tokenEnd.wallMs),
    };
    return {
      ...result.facts,
      conditions: result.conditions,
      expiresAt,
      renewAtMs: renewAtMs(now, expiresAt, this.#deps.random()),
      decision: allowedBy(credential.kind, result.token, result.conditions),
    };
  }

  #fill(credential: Credential, grant: Grant, now: Instant): void {
    this.#keep(credential.cacheKey, grant);
    this.#standing.set(credential.cacheKey, grant.maxStalenessMs);
    const { tokenCache } = this.#deps;
    const lifeMs = Math.floor(grant.expiresAt.wallMs - now.wallMs);
    if (tokenCache === null || lifeMs < 1 || grant.maxStalenessMs === 0) return;
    const plaintext = JSON.stringify({
      kind: grant.decision.kind,
      token: grant.decision.token,
      subjects: grant.subjects,
      maxStalenessMs: grant.maxStalenessMs,
      expiresAtMs: grant.expiresAt.wallMs,
      conditions: grant.conditions,
    });
    const sealed = this.#sealer.seal(sealContext(credential), grant.asOf, plaintext);
    // L2 only saves exchanges: one that cannot be written is none the less decided.
    tokenCache.set(credential.cacheKey, sealed, lifeMs, grant.subjects).catch(() => undefined);
  }

  #keep(cacheKey: string, grant: Grant): void {
    this.#noteMaxStaleness(grant.maxStalenessMs);
    if (grant.maxStalenessMs > 0) this.#grants.set(cacheKey, grant);
  }

  #noteMaxStaleness(maxStalenessMs: number): void {
    this.#largestMaxStalenessMs = Math.max(this.#largestMaxStalenessMs, maxStalenessMs);
    this.#deps.onMaxStaleness(maxStalenessMs);
  }

  #unavailable(thrown: unknown): Decision {
    const error = toServiceError(thrown);
    if (error.code === 'internal') this.#deps.logger.error({ err: error }, 'decision failed');
    return this.#later(error.code === 'internal' ? 'decision_unavailable' : error.code);
  }

  #later(code: ErrorCode): Decision {
    const retryAfterSeconds = 1 + Math.floor(this.#deps.random() * retryAfterMaxSeconds);
    return { outcome: 'unavailable', code, retryAfterSeconds };
  }

  #report(source: DecisionSource, decision: Decision): Decision {
    this.#deps.onDecision(source, decision);
    return decision;
  }
}

function sealContext({ value, cacheKey }: Credential) {
  return { credential: value, cacheKey };
}

function later(instant: Instant, byMs: number): Instant {
  return { monotonicMs: instant.monotonicMs + byMs, wallMs: instant.wallMs + byMs };
}

/** A moment of the wall clock, on both clocks as they stand now. */
function instantOfWall(wallMs: number, now: Instant): Instant {
  return { monotonicMs: now.monotonicMs + (wallMs - now.wallMs), wallMs };
}
