/** Each guard of the protocol, and how to switch it off in the source. @module */
export interface Patch {
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

export interface Guard {
  readonly name: string;
  /** The tests that must notice; default: those of the protocol and of the gateway. */
  readonly tests?: readonly string[];
  /** False: nothing is decided by it, so that only tests can notice. */
  readonly isOfProtocol?: false;
  /** One after the other. */
  readonly patches: readonly Patch[];
}

/** Throws when its place is not found exactly once. */
export function applyPatch(text: string, { file, find, replace }: Patch): string {
  if (text.split(find).length !== 2) throw new Error(`not exactly once in ${file}: ${find}`);
  return text.replace(find, () => replace);
}

const view = 'packages/revocation/src/view.ts';
const freshness = 'packages/revocation/src/freshness.ts';

export const guards: readonly Guard[] = [
  {
    name: 'asOf is held against tombstones on every use',
    patches: [
      {
        file: view,
        find: "if (this.#tombstones.isAnyNewer(decision.subjects, decision.asOf.seq)) return 'tombstoned';\n    if (!this.#freshness",
        replace: 'if (!this.#freshness',
      },
    ],
  },
  {
    name: 'a cached decision is used only while fresh',
    patches: [
      { file: view, find: "if (!this.#freshness.isFresh(now, decision.maxStalenessMs)) return 'stale';", replace: '' },
    ],
  },
  {
    name: 'freshness counts from asking, not from the answer',
    patches: [
      {
        file: view,
        find: "this.#freshness.raise(question.askedAt);\n    return { outcome: 'fresh'",
        replace: "this.#freshness.raise(now);\n    return { outcome: 'fresh'",
      },
    ],
  },
  {
    name: 'the age of an exchange is bounded',
    patches: [
      {
        file: view,
        find: "if (!isYoung && (isBehind || this.#checkFacts(decision, now) !== 'usable')) return 'too-old';",
        replace: '',
      },
    ],
  },
  {
    name: 'only the watermark raises applied',
    patches: [
      {
        file: view,
        find: "return 'extended';",
        replace:
          "this.#applied = change.seq;\n    this.#appliedChain = chain;\n    this.#path = [];\n    return 'extended';",
      },
    ],
  },
  {
    name: 'the gateway computes the hash chain of what it hears',
    patches: [
      {
        file: view,
        find: 'const chain = chainAfter(last?.chain ?? this.#appliedChain, change);',
        replace: 'const { chain } = change;',
      },
    ],
  },
  {
    name: 'identity compares the hash chain of what a gateway has heard',
    tests: ['services/identity/src/log/*.test.ts', 'services/identity/src/identity.test.ts'],
    patches: [
      {
        file: 'services/identity/src/log/watermark.ts',
        find: '&& chains.get(request.heard) === heardChain;',
        replace: ';',
      },
    ],
  },
  {
    name: 'the gateway compares the hash chain of what identity answers',
    patches: [
      {
        file: view,
        find: 'if (expectedBaseChain !== answer.baseChain) {',
        replace: 'if (expectedBaseChain === undefined) {',
      },
    ],
  },
  {
    name: 'a smaller epoch grants nothing',
    patches: [
      {
        file: view,
        find: "if (answer.epoch < this.#epoch) return { outcome: 'ignored', why: 'smaller-epoch' };",
        replace: '',
      },
    ],
  },
  {
    name: 'an answer below what was known when it was asked grants nothing',
    patches: [
      {
        file: view,
        find: 'if (answer.epoch === question.epoch && answer.seq < question.newest) {',
        replace: 'if (answer.epoch === -1) {',
      },
    ],
  },
  {
    name: 'a grant read below what was known when it was asked proves nothing',
    patches: [
      {
        file: view,
        find: 'const isProof = !this.#isClosed && !isBehind;',
        replace: 'const isProof = !this.#isClosed;',
      },
    ],
  },
  {
    name: 'a contradiction closes the caches until a larger epoch',
    patches: [
      {
        file: view,
        find: "if (this.#isClosed && answer.epoch === this.#epoch) return { outcome: 'ignored', why: 'contradicted-epoch' };",
        replace: '',
      },
    ],
  },
  {
    name: 'the result of an exchange is held against tombstones on arrival',
    patches: [
      {
        file: view,
        find: "if (this.#tombstones.isAnyNewer(subjects, asOf.seq, asked.askedAt)) return 'tombstoned';\n    // Less than",
        replace: '// It was read',
      },
    ],
  },
  {
    name: 'an exchange of a replaced epoch is not used',
    patches: [{ file: view, find: "if (asOf.epoch < this.#epoch) return 'replaced-epoch';", replace: '' }],
  },
  {
    name: 'the floor rises over dropped tombstones',
    patches: [
      {
        file: view,
        find: 'this.#floor = Math.max(this.#floor, this.#tombstones.prune(this.#longestLifeMs, now));',
        replace: 'this.#tombstones.prune(this.#longestLifeMs, now);',
      },
    ],
  },
  {
    name: 'a wall clock gone back is stale',
    patches: [
      {
        file: 'packages/revocation/src/instant.ts',
        find: 'if (now.wallMs < since.wallMs) return Number.POSITIVE_INFINITY;',
        replace: '',
      },
    ],
  },
  {
    name: 'bounds are kept shorter by the tolerance of clock rates',
    patches: [{ file: freshness, find: 'boundMs * (1 - clockRateTolerance)', replace: 'boundMs' }],
  },
  {
    name: 'claims of signals that a later watermark does not know are taken back',
    patches: [
      {
        file: 'packages/revocation/src/tombstones.ts',
        find: '(claim) => claim.seq > seq && claim.arrivedAt.monotonicMs > askedAt.monotonicMs,',
        replace: '(claim) => claim.seq > seq,',
      },
    ],
  },
  {
    name: 'a cached decision of another epoch is not used',
    patches: [{ file: view, find: "if (decision.asOf.epoch !== this.#epoch) return 'other-epoch';", replace: '' }],
  },
  {
    name: 'decisions read before the first change loaded are refused',
    patches: [
      {
        file: view,
        find: "if (this.#isClosed || decision.asOf.seq < this.#floor) return 'below-floor';",
        replace: "if (this.#isClosed) return 'below-floor';",
      },
      { file: view, find: 'return isProof && asOf.seq >= this.#floor && ', replace: 'return isProof && ' },
    ],
  },
  {
    name: 'claims of signals are kept apart from confirmed tombstones',
    patches: [
      {
        file: view,
        find: "if (!this.#tombstones.claim(subjects, change.seq, now)) return 'dropped';",
        replace: 'this.#tombstones.confirm(subjects, change.seq, now);',
      },
    ],
  },
  {
    name: 'the wall clock counts as well',
    patches: [
      {
        file: 'packages/revocation/src/instant.ts',
        find: 'return Math.max(now.monotonicMs - since.monotonicMs, now.wallMs - since.wallMs);',
        replace: 'return now.monotonicMs - since.monotonicMs;',
      },
    ],
  },
  {
    name: 'refusals make nothing fresh',
    patches: [
      {
        file: 'services/gateway/src/decision/decide.ts',
        find: 'if (view.isOvertaken(result.facts, flight.asked())) return null;',
        replace:
          "if (view.admit({ ...result.facts, maxStalenessMs: 1000 }, flight.asked(), now) === 'tombstoned') return null;",
      },
    ],
  },
  {
    name: 'waiters inherit the moment the exchange was asked',
    patches: [
      {
        file: 'services/gateway/src/decision/decide.ts',
        find: 'const admission = view.admit(result.facts, flight.asked(), now);',
        replace: 'const admission = view.admit(result.facts, view.asking(now), now);',
      },
    ],
  },
  {
    name: 'L2 values are bound to their cache key',
    patches: [
      {
        file: 'services/gateway/src/cache/sealed.ts',
        find: 'decipher.setAAD(Buffer.concat([header, Buffer.from(cacheKey)]));',
        replace: 'decipher.setAAD(header);',
      },
      {
        file: 'services/gateway/src/cache/sealed.ts',
        find: 'cipher.setAAD(Buffer.concat([header, Buffer.from(cacheKey)]));',
        replace: 'cipher.setAAD(header);',
      },
    ],
  },
  {
    name: 'a grant whose renewal is refused is used no more',
    tests: ['services/gateway/src/gateway.test.ts'],
    isOfProtocol: false,
    patches: [
      {
        file: 'services/gateway/src/decision/decide.ts',
        find: "if (decision?.outcome === 'deny') this.#drop(credential, grant);",
        replace: '',
      },
    ],
  },
  {
    name: 'identity refuses what was verified by another configuration than the present one',
    tests: ['services/identity/src/identity.test.ts'],
    patches: [
      {
        file: 'services/identity/src/resolve.ts',
        find: "if (refusal !== 'provider_disabled' && !isCurrent) {",
        replace: 'if (provider.revision < 0) {',
      },
    ],
  },
  {
    name: 'a token is signed by no key older than identity allows',
    tests: ['services/auth-server/src/exchange/exchange.test.ts'],
    patches: [
      {
        file: 'services/auth-server/src/exchange/exchange.ts',
        find: 'signer.sign(claims, resolved.minSigningGeneration)',
        replace: 'signer.sign(claims, 0)',
      },
    ],
  },
  {
    name: 'a token of a compromised signing key is refused by whatever keys identity has cached',
    tests: ['services/identity/src/rest/caller.test.ts'],
    isOfProtocol: false,
    patches: [
      {
        file: 'services/identity/src/rest/caller.ts',
        find: 'if (generation < minSigningGeneration) throw',
        replace: 'if (generation < 0) throw',
      },
    ],
  },
  {
    name: 'the JWKS is of the generation that identity requires now',
    tests: ['services/auth-server/src/signing/published-keys.test.ts'],
    isOfProtocol: false,
    patches: [
      {
        file: 'services/auth-server/src/signing/published-keys.ts',
        find: 'least = Math.max(least, minSigningGeneration);',
        replace: 'least = Math.max(least, 1);',
      },
    ],
  },
  {
    name: 'a receipt counts from the signal only when identity confirmed that very change',
    tests: ['services/gateway/src/view/receipts.test.ts'],
    isOfProtocol: false,
    patches: [
      {
        file: 'services/gateway/src/view/receipts.ts',
        find: 'heard?.chain === chain ? (heard?.atMs ?? monotonicMs) : monotonicMs',
        replace: 'chain === undefined ? monotonicMs : (heard?.atMs ?? monotonicMs)',
      },
    ],
  },
  {
    name: 'receipts of another epoch are not believed',
    tests: ['services/identity/src/receipts/receipts.test.ts'],
    isOfProtocol: false,
    patches: [
      { file: 'services/identity/src/receipts/receipts.ts', find: 'if (epoch !== head.epoch) return;', replace: '' },
    ],
  },
  {
    name: 'the observer counts D against when it asked, not against the answer',
    tests: ['services/revocation-relay/src/observer/observer.test.ts'],
    isOfProtocol: false,
    patches: [
      {
        file: 'services/revocation-relay/src/observer/observer.ts',
        find: 'askedAt.monotonicMs - answeredAt.monotonicMs - boundMs',
        replace: 'clock.now().monotonicMs - answeredAt.monotonicMs - boundMs',
      },
    ],
  },
  {
    name: 'the observer asks on after a refusal, until D has passed',
    tests: ['services/revocation-relay/src/observer/observer.test.ts'],
    isOfProtocol: false,
    patches: [
      {
        file: 'services/revocation-relay/src/observer/observer.ts',
        find: 'if (overdueMs > 0) {',
        replace: "if (overdueMs > 0 || said === 'refused') {",
      },
    ],
  },
];
