/** Decides by rules: before the credential is looked at, and on what was decided of it, whether a cache knew it or not. @module */
import type { ErrorCode } from '@token-gateway/platform';
import type { Decide, Decision, DecisionRequest } from '../decision/decision.ts';
import { type Allowed, type Claims, claimsOf, headerValueOf, type RouteDemand, unmetDemand } from './demand.ts';
import type { Rule, Rules } from './rule.ts';
import { type Found, foundNone, type Place, RuleTable } from './table.ts';

/** By names in lower case. */
export type HeaderPairs = readonly (readonly [name: string, value: string])[];
/** Headers for the upstream: these alone. */
export type UpstreamHeaders = HeaderPairs;

interface Told {
  /** For the caller, beside whatever it is answered; absent = none. */
  readonly answerHeaders?: HeaderPairs;
}

export type RuledDecision =
  | (Exclude<Decision, { outcome: 'allow' }> & Told)
  | (Allowed & Told & { readonly headers: UpstreamHeaders })
  /** Let in without a credential, and without a word of who it is. */
  | { readonly outcome: 'public' };

export interface RuledRequest extends DecisionRequest, Place {
  /** The audience that the proxy asks for; absent: the rule's, or the gateway's own. */
  readonly audience?: string;
  /** What the proxy says of the route; holds beside the rules, and the stricter of both counts. */
  readonly route?: RouteDemand;
}

export type DecideByRules = (request: RuledRequest) => RuledDecision | Promise<RuledDecision>;

export type Access = NonNullable<Rule['access']>;
/** The strictest first. */
const strictness: readonly Access[] = ['deny', 'token', 'anonymous', 'public'];

function isOpen(access: Access | undefined): boolean {
  return access === 'public' || access === 'anonymous';
}

/** Rules that are in force together. */
export class RuleSet {
  readonly #table: RuleTable;
  readonly #otherwise: 'token' | 'deny';
  /** Every header that a rule gives to an upstream: from a client none of them is passed on, wherever it goes. */
  readonly upstreamHeaders: readonly string[];
  readonly #isEmpty: boolean;

  /** Throws when a pattern is none, or when two rules are for the same requests. */
  constructor({ rules, otherwise = 'token' }: Rules) {
    this.#table = new RuleTable(rules);
    this.#otherwise = otherwise;
    this.#isEmpty = rules.length === 0;
    const names = rules.flatMap(({ tokenHeader, claimHeaders = {} }) => [
      ...(tokenHeader === undefined ? [] : [tokenHeader.name]),
      ...Object.keys(claimHeaders),
    ]);
    this.upstreamHeaders = [...new Set(names.map((name) => name.toLowerCase()))];
  }

  find(place: Place): Found {
    // The proxy that says what a route demands has found it itself. To read these of a request costs something.
    if (this.#isEmpty) return foundNone;
    return this.#table.find(place);
  }

  /** What a request needs at least, whatever its credential. */
  accessOf(found: Found, route: RouteDemand | undefined): Access {
    const byRule = found.outcome === 'rule' ? (found.rule.access ?? 'token') : null;
    // Who says nothing of the route does not make it public, nor keep another from it.
    if (byRule === null && !isOpen(route?.access) && this.#otherwise === 'deny') return 'deny';
    if (route === undefined) return byRule ?? 'token';
    const said: readonly Access[] = [byRule ?? 'public', route.access ?? 'token'];
    return strictness.find((access) => said.includes(access)) ?? 'deny';
  }
}

export const noRules = new RuleSet({ rules: [] });

/** What is made of the rules in force: anew when others are. */
export function madeOfRules<T>(rules: () => RuleSet, make: (inForce: RuleSet) => T): () => T {
  let of = rules();
  let made = make(of);
  return () => {
    const inForce = rules();
    if (inForce !== of) {
      made = make(inForce);
      of = inForce;
    }
    return made;
  };
}

interface Deps {
  readonly decide: Decide;
  /** Without a credential. */
  readonly decideAnonymously: Decide;
  /** Those in force now. */
  readonly rules: () => RuleSet;
  /** What the rules themselves said, beside what was decided of a credential. */
  readonly onRuled: (decision: Extract<RuledDecision, { outcome: 'deny' | 'public' }>) => void;
}

const publicly = { outcome: 'public' } as const;

type Judgement = Extract<RuledDecision, { outcome: 'allow' | 'deny' }>;

/** One decision is the answer to many requests: what is made of it is kept with it. */
class Judged {
  readonly #decision: Allowed;
  #claims: Claims | null = null;
  /** null: no rule is for it. */
  readonly #byRule = new Map<Rule | null, Judgement>();

  constructor(decision: Allowed) {
    this.#decision = decision;
  }

  /** Read once, and only where something is asked of them. */
  #claimsOnce(): Claims {
    this.#claims ??= claimsOf(this.#decision);
    return this.#claims;
  }

  unmet(demand: RouteDemand): ErrorCode | null {
    return unmetDemand(this.#decision, this.#claimsOnce(), demand);
  }

  by(rule: Rule | null): Judgement {
    const known = this.#byRule.get(rule);
    if (known !== undefined) return known;
    const judgement = this.#judge(rule);
    this.#byRule.set(rule, judgement);
    return judgement;
  }

  #judge(rule: Rule | null): Judgement {
    const decision = this.#decision;
    if (rule === null) return { ...decision, headers: [['authorization', `Bearer ${decision.token}`]] };
    const unmet = this.unmet(rule);
    return unmet === null ? { ...decision, headers: this.#headersBy(rule) } : { outcome: 'deny', code: unmet };
  }

  #headersBy({ tokenHeader, claimHeaders = {} }: Rule): UpstreamHeaders {
    const { name, prefix = '' } = tokenHeader ?? { name: 'authorization', prefix: 'Bearer ' };
    const claims = this.#claimsOnce();
    const ofClaims = Object.entries(claimHeaders).flatMap(([header, claim]) => {
      const value = headerValueOf(claims, claim);
      return value === null ? [] : [[header.toLowerCase(), value] as const];
    });
    return [[name.toLowerCase(), prefix + this.#decision.token], ...ofClaims];
  }
}

export function createDecideByRules({ decide, decideAnonymously, rules, onRuled }: Deps): DecideByRules {
  const judgedBefore = new WeakMap<Allowed, Judged>();

  function firstJudged(decision: Allowed): Judged {
    const judged = new Judged(decision);
    judgedBefore.set(decision, judged);
    return judged;
  }

  function judge(decision: Decision, rule: Rule | null, route: RouteDemand | undefined): RuledDecision {
    if (decision.outcome !== 'allow') return decision;
    const judged = judgedBefore.get(decision) ?? firstJudged(decision);
    const unmet = route === undefined ? null : judged.unmet(route);
    const judgement: Judgement = unmet === null ? judged.by(rule) : { outcome: 'deny', code: unmet };
    return judgement.outcome === 'deny' ? said(judgement) : judgement;
  }

  function said(decision: Extract<RuledDecision, { outcome: 'deny' | 'public' }>): RuledDecision {
    onRuled(decision);
    return decision;
  }

  return (request) => {
    const { route } = request;
    const inForce = rules();
    const found = inForce.find(request);
    if (found.outcome === 'ambiguous') return said({ outcome: 'deny', code: 'path_ambiguous' });
    if (found.outcome === 'other-method') return said({ outcome: 'deny', code: 'method_not_allowed' });
    const access = inForce.accessOf(found, route);
    if (access === 'deny') return said({ outcome: 'deny', code: 'route_denied' });
    if (access === 'public') return said(publicly);
    const rule = found.outcome === 'rule' ? found.rule : null;
    const audience = request.audience ?? rule?.audience;
    const decision = (access === 'anonymous' ? decideAnonymously : decide)(request, audience);
    if (!(decision instanceof Promise)) return judge(decision, rule, route);
    return decision.then((later) => judge(later, rule, route));
  };
}
