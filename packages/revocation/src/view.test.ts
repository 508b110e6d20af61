import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type ChangeContent, changePayload, genesisChain, nextChain } from './change.ts';
import type { Instant } from './instant.ts';
import { ChangeLog } from './testing.ts';
import {
  type Asked,
  type CachedDecision,
  type DecisionFacts,
  exchangeAgeBoundMs,
  RevocationView,
  type WatermarkAnswer,
  type WatermarkQuestion,
} from './view.ts';

const at = (ms: number): Instant => ({ monotonicMs: ms, wallMs: 1_000_000 + ms });
/** Asked when nothing of the log had been seen yet. */
const since = (ms: number): Asked => ({ epoch: 0, newest: 0, askedAt: at(ms) });
const subjects = ['tenant:t', 'user:u', 'key:k'];
const never = at(10_000_000);

function decision(asOf: number, overrides: Partial<CachedDecision> = {}): CachedDecision {
  return { asOf: { epoch: 1, seq: asOf }, subjects, maxStalenessMs: 1000, expiresAt: never, ...overrides };
}

function started(log: ChangeLog, now = at(0)): RevocationView {
  const view = new RevocationView({ longestLifeMs: 300_000 });
  const question = view.question(now);
  assert.equal(view.learn(question, log.answer(question), now).outcome, 'reset');
  return view;
}

describe('use-check', () => {
  it('refuses every cached decision before the first watermark', () => {
    const view = new RevocationView({ longestLifeMs: 1000 });
    assert.notEqual(view.check(decision(0, { asOf: { epoch: 0, seq: 0 } }), at(0)), 'usable');
  });

  it('refuses a decision read before a change of any of its subjects, and accepts one read after', () => {
    const log = new ChangeLog();
    const view = started(log);
    for (const subject of subjects) {
      const change = log.append([subject]);
      view.hear(change, at(1));
      assert.equal(view.check(decision(change.seq - 1), at(1)), 'tombstoned');
      const question = view.question(at(1));
      view.learn(question, log.answer(question), at(2));
      assert.equal(view.check(decision(change.seq - 1), at(2)), 'tombstoned');
      assert.equal(view.check(decision(change.seq), at(2)), 'usable');
    }
  });

  it('takes a change without subjects as one of all', () => {
    const log = new ChangeLog();
    const view = started(log);
    view.hear(log.append([]), at(1));
    assert.equal(view.check(decision(0), at(1)), 'tombstoned');
  });

  it('is stale once the watermark is as old as maxStaleness less the tolerance of clock rates', () => {
    const view = started(new ChangeLog(), at(0));
    assert.equal(view.check(decision(0), at(989)), 'usable');
    assert.equal(view.check(decision(0), at(990)), 'stale');
    assert.equal(view.check(decision(0, { maxStalenessMs: 0 }), at(0)), 'stale');
  });

  it('is stale when the wall clock went back, or ran on while the monotonic clock stood still', () => {
    const view = started(new ChangeLog(), at(100));
    assert.equal(view.check(decision(0), { monotonicMs: 101, wallMs: 1_000_099 }), 'stale');
    assert.equal(view.check(decision(0), { monotonicMs: 101, wallMs: 1_005_000 }), 'stale');
  });

  it('refuses a decision of another epoch', () => {
    const view = started(new ChangeLog());
    assert.equal(view.check(decision(0, { asOf: { epoch: 2, seq: 0 } }), at(1)), 'other-epoch');
  });

  it('refuses a decision that has ended by either clock', () => {
    const view = started(new ChangeLog());
    assert.equal(view.check(decision(0, { expiresAt: { monotonicMs: 5, wallMs: 2_000_000 } }), at(5)), 'expired');
    assert.equal(view.check(decision(0, { expiresAt: { monotonicMs: 9_999, wallMs: 1_000_005 } }), at(5)), 'expired');
  });
});

describe('watermark', () => {
  it('counts freshness from the moment of asking, not of the answer', () => {
    const log = new ChangeLog();
    const view = started(log, at(0));
    const question = view.question(at(100));
    view.learn(question, log.answer(question), at(900));
    assert.equal(view.freshnessAgeMs(at(900)), 800);
    assert.equal(view.check(decision(0), at(1089)), 'usable');
    assert.equal(view.check(decision(0), at(1091)), 'stale');
  });

  it('brings the changes that no signal brought', () => {
    const log = new ChangeLog();
    const view = started(log);
    log.append(['key:k']);
    const question = view.question(at(10));
    assert.equal(view.learn(question, log.answer(question), at(11)).outcome, 'fresh');
    assert.equal(view.check(decision(0), at(11)), 'tombstoned');
    assert.equal(view.applied, 1);
  });

  it('of a smaller epoch grants nothing and changes nothing', () => {
    const old = new ChangeLog();
    const log = new ChangeLog();
    log.epoch = 2;
    log.append(['user:x']);
    const view = started(log, at(0));
    const question = view.question(at(500));
    const learned = view.learn(question, old.answer({ ...question, epoch: 0 }), at(501));
    assert.deepEqual(learned, { outcome: 'ignored', why: 'smaller-epoch' });
    assert.equal(view.epoch, 2);
    assert.equal(view.freshnessAgeMs(at(501)), 501);
  });

  it('below what was applied grants nothing', () => {
    const log = new ChangeLog();
    log.append(['user:x']);
    const view = started(log, at(0));
    const question = view.question(at(500));
    const behind: WatermarkAnswer = {
      epoch: 1,
      seq: 0,
      chain: genesisChain,
      base: 0,
      baseChain: genesisChain,
      changes: [],
      reset: false,
    };
    assert.deepEqual(view.learn(question, behind, at(501)), { outcome: 'ignored', why: 'gone-back' });
    assert.deepEqual(view.learn(question, { ...behind, reset: true }, at(501)), {
      outcome: 'ignored',
      why: 'gone-back',
    });
    assert.equal(view.freshnessAgeMs(at(501)), 501);
  });

  it('of a larger epoch drops everything known before', () => {
    const log = new ChangeLog();
    const view = started(log);
    const promoted = new ChangeLog();
    promoted.epoch = 7;
    const question = view.question(at(10));
    assert.equal(view.learn(question, promoted.answer(question), at(11)).outcome, 'reset');
    assert.equal(view.check(decision(0), at(11)), 'other-epoch');
    assert.equal(view.check(decision(0, { asOf: { epoch: 7, seq: 0 } }), at(11)), 'usable');
  });

  it('with a gap or an altered change proves nothing', () => {
    for (const alter of [
      (answer: WatermarkAnswer) => ({ ...answer, changes: answer.changes.slice(1) }),
      (answer: WatermarkAnswer) => ({
        ...answer,
        changes: answer.changes.map((change) => ({ ...change, subjects: ['user:somebody-else'] })),
      }),
    ]) {
      const log = new ChangeLog();
      const view = started(log);
      log.append(['key:k']);
      log.append(['key:k2']);
      const question = view.question(at(10));
      const learned = view.learn(question, alter(log.answer(question)), at(11));
      assert.deepEqual(learned, { outcome: 'ignored', why: 'inconsistent' });
      assert.equal(view.applied, 0);
      assert.equal(view.freshnessAgeMs(at(11)), 11);
    }
  });

  it('that contradicts what was known of the same epoch closes the caches until a larger epoch', () => {
    const log = new ChangeLog();
    const view = started(log);
    log.append(['key:k']);
    log.append(['key:k2']);
    const before = view.question(at(5));
    view.learn(before, log.answer(before), at(6));
    // The database lost a commit under the same epoch and went on.
    log.changes.pop();
    log.append(['user:x']);
    log.append(['user:y']);
    const question = view.question(at(10));
    const answer = { ...log.answer({ ...question, heardChain: log.chainAt(2) ?? '' }) };
    assert.equal(view.learn(question, answer, at(11)).outcome, 'contradiction');
    const again = view.question(at(20));
    assert.equal(view.learn(again, { ...log.answer({ ...again, epoch: 0 }) }, at(21)).outcome, 'ignored');
    for (let seq = 0; seq <= 4; seq++) assert.notEqual(view.check(decision(seq), at(22)), 'usable');
    assert.equal(view.admit(decision(4), view.asking(at(22)), at(23)), 'usable-once');
    log.epoch = 2;
    const promoted = view.question(at(30));
    assert.equal(view.learn(promoted, log.answer(promoted), at(31)).outcome, 'reset');
    assert.equal(view.check(decision(4, { asOf: { epoch: 2, seq: 4 } }), at(32)), 'usable');
  });

  it('below the sequence of a grant that was read before it was asked proves nothing', () => {
    const log = new ChangeLog();
    const view = started(log);
    log.append(['user:x']);
    view.admit(decision(1), view.asking(at(1)), at(2));
    log.changes.pop();
    const question = view.question(at(10));
    assert.deepEqual(view.learn(question, log.answer(question), at(11)), { outcome: 'ignored', why: 'gone-back' });
  });

  it('answers that overtake each other leave the newest position', () => {
    const log = new ChangeLog();
    const view = started(log);
    const first = view.question(at(10));
    const firstAnswer = log.answer(first);
    log.append(['key:k']);
    const second = view.question(at(20));
    view.learn(second, log.answer(second), at(21));
    assert.equal(view.learn(first, firstAnswer, at(30)).outcome, 'fresh');
    assert.equal(view.applied, 1);
    assert.equal(view.check(decision(0), at(31)), 'tombstoned');
    assert.equal(view.freshnessAgeMs(at(31)), 11);
  });
});

describe('signals', () => {
  it('never raise applied, nor make anything fresh', () => {
    const log = new ChangeLog();
    const view = started(log, at(0));
    assert.equal(view.hear(log.append(['user:x']), at(5000)), 'extended');
    assert.equal(view.applied, 0);
    assert.equal(view.heard, 1);
    assert.equal(view.check(decision(1), at(5000)), 'stale');
  });

  it('extend heard only as the next link of the chain', () => {
    const log = new ChangeLog();
    const view = started(log);
    const [one, two, three] = [log.append(['user:a']), log.append(['user:b']), log.append(['user:c'])];
    assert.equal(view.hear(two, at(1)), 'noted');
    assert.equal(view.hear({ ...one, subjects: ['user:z'] }, at(1)), 'chain-mismatch');
    assert.equal(view.heard, 0);
    assert.equal(view.hear(one, at(1)), 'extended');
    assert.equal(view.hear(two, at(1)), 'extended');
    assert.equal(view.hear(two, at(1)), 'known');
    assert.equal(view.hear(three, at(1)), 'extended');
    const question = view.question(at(2));
    const answer = log.answer(question);
    assert.deepEqual([answer.base, answer.changes.length], [3, 0]);
    assert.equal(view.learn(question, answer, at(3)).outcome, 'fresh');
    for (const name of ['a', 'b', 'c']) {
      assert.equal(view.check(decision(0, { subjects: [`user:${name}`] }), at(3)), 'tombstoned');
    }
  });

  it('that are forged with a consistent chain are found out by the next watermark, and the true change is applied', () => {
    const log = new ChangeLog();
    const view = started(log);
    const forged = new ChangeLog().append(['user:somebody-else']);
    assert.equal(view.hear(forged, at(1)), 'extended');
    log.append(['key:k']);
    const question = view.question(at(2));
    const learned = view.learn(question, log.answer(question), at(3));
    assert.ok(learned.outcome === 'fresh' && !learned.chainAgreed);
    assert.equal(view.check(decision(0), at(3)), 'tombstoned');
    assert.equal(view.applied, 1);
  });

  it('above the newest sequence of a later watermark are taken back; true tombstones under them stay', () => {
    const log = new ChangeLog();
    const view = started(log);
    log.append(['key:k']);
    const first = view.question(at(1));
    view.learn(first, log.answer(first), at(2));
    view.hear({ ...log.append(['key:k']), seq: 1_000_000 }, at(3));
    log.changes.pop();
    assert.equal(view.check(decision(1), at(3)), 'tombstoned');
    assert.equal(view.check(decision(0), at(3)), 'tombstoned');
    const question = view.question(at(4));
    view.learn(question, log.answer(question), at(5));
    assert.equal(view.check(decision(1), at(5)), 'usable');
    assert.equal(view.check(decision(0), at(5)), 'tombstoned');
    assert.equal(view.unconfirmedCount, 0);
  });

  it('that arrived after the question was asked survive an answer that does not know them yet', () => {
    const log = new ChangeLog();
    const view = started(log);
    const question = view.question(at(1));
    const answer = log.answer(question);
    view.hear(log.append(['key:k']), at(2));
    view.learn(question, answer, at(3));
    assert.equal(view.check(decision(0), at(3)), 'tombstoned');
    assert.equal(view.heard, 1);
  });

  it('in a flood are dropped beyond a limit, which costs nothing but speed', () => {
    const log = new ChangeLog();
    const view = new RevocationView({ longestLifeMs: 1000, unconfirmedMax: 2 });
    const question = view.question(at(0));
    view.learn(question, log.answer(question), at(0));
    const changes = ['a', 'b', 'c'].map((name) => log.append([`user:${name}`]));
    assert.deepEqual(
      changes.map((change) => view.hear(change, at(1))),
      ['extended', 'extended', 'dropped'],
    );
    const next = view.question(at(2));
    view.learn(next, log.answer(next), at(3));
    assert.equal(view.check(decision(0, { subjects: ['user:c'] }), at(3)), 'tombstoned');
  });
});

describe('exchange results', () => {
  it('are not used when a tombstone is newer than the snapshot they were read in', () => {
    const log = new ChangeLog();
    const view = started(log);
    view.hear(log.append(['user:u']), at(5));
    assert.equal(view.admit(decision(0), since(1), at(6)), 'tombstoned');
    assert.equal(view.admit(decision(1), since(1), at(6)), 'cacheable');
  });

  it('are not used when they took longer than the age bound, unless the use-check passes', () => {
    const log = new ChangeLog();
    const view = started(log, at(0));
    assert.equal(view.admit(decision(0), since(100), at(1089)), 'cacheable');
    log.append(['user:x']);
    assert.equal(view.admit(decision(1), since(2000), at(2000 + 990)), 'too-old');
    assert.equal(view.admit(decision(1, { maxStalenessMs: 0 }), since(2000), at(2247)), 'cacheable');
    assert.equal(view.admit(decision(1, { maxStalenessMs: 0 }), since(2000), at(2248)), 'too-old');
    const question = view.question(at(2900));
    view.learn(question, log.answer(question), at(2950));
    assert.equal(view.admit(decision(1), since(2000), at(2990)), 'cacheable');
  });

  it('make the view fresh from the moment of asking when all of their snapshot is applied', () => {
    const view = started(new ChangeLog(), at(0));
    view.admit(decision(0), since(700), at(900));
    assert.equal(view.freshnessAgeMs(at(900)), 200);
    view.admit(decision(1), since(880), at(890));
    assert.equal(view.freshnessAgeMs(at(900)), 200);
  });

  it('read before what was known when they were asked make nothing fresh and are kept nowhere', () => {
    const log = new ChangeLog();
    const view = started(log, at(0));
    log.append(['user:x']);
    const question = view.question(at(1));
    view.learn(question, log.answer(question), at(2));
    const asked = view.asking(at(100));
    assert.equal(view.admit(decision(0), asked, at(110)), 'usable-once');
    assert.equal(view.freshnessAgeMs(at(110)), 109);
    assert.equal(view.admit(decision(0), asked, at(1095)), 'too-old');
  });

  it('asked after a claim arrived, and read without it, are used: the claim was never committed', () => {
    const log = new ChangeLog();
    const view = started(log);
    view.hear({ ...log.append([]), seq: 1_000_000 }, at(5));
    log.changes.pop();
    assert.equal(view.admit(decision(0), since(5), at(7)), 'tombstoned');
    assert.equal(view.admit(decision(0), since(6), at(7)), 'cacheable');
    assert.equal(view.isOvertaken(decision(0), since(6)), false);
    assert.equal(view.check(decision(0), at(7)), 'tombstoned');
  });

  it('of a newer epoch are used within the age bound and kept nowhere; of an older epoch never', () => {
    const log = new ChangeLog();
    log.epoch = 5;
    const view = started(log);
    assert.equal(view.admit(decision(0, { asOf: { epoch: 6, seq: 0 } }), since(1), at(2)), 'usable-once');
    assert.equal(view.admit(decision(0, { asOf: { epoch: 6, seq: 0 } }), since(1), at(1000)), 'too-old');
    assert.equal(view.admit(decision(0, { asOf: { epoch: 4, seq: 9 } }), since(1), at(2)), 'replaced-epoch');
  });

  it('that are refusals are overtaken by a newer tombstone or epoch, and make nothing fresh', () => {
    const log = new ChangeLog();
    log.epoch = 5;
    const view = started(log, at(0));
    view.hear(log.append(['user:u']), at(5));
    assert.equal(view.isOvertaken({ asOf: { epoch: 5, seq: 0 }, subjects }, since(1)), true);
    assert.equal(view.isOvertaken({ asOf: { epoch: 5, seq: 1 }, subjects }, since(1)), false);
    assert.equal(view.isOvertaken({ asOf: { epoch: 4, seq: 9 }, subjects }, since(1)), true);
    assert.equal(view.isOvertaken({ asOf: { epoch: 6, seq: 0 }, subjects }, since(1)), false);
    assert.equal(view.freshnessAgeMs(at(900)), 900);
  });

  it('that do not name all that can revoke them are kept nowhere', () => {
    const view = started(new ChangeLog());
    for (const missing of subjects) {
      const facts = decision(0, { subjects: subjects.filter((subject) => subject !== missing) });
      assert.equal(view.admit(facts, since(1), at(2)), 'usable-once');
    }
    const external = ['tenant:t', 'user:u', 'provider:p', 'credential:c'];
    assert.equal(view.admit(decision(0, { subjects: external }), since(1), at(2)), 'cacheable');
    assert.equal(view.admit(decision(0, { subjects: external.slice(0, 3) }), since(1), at(2)), 'usable-once');
    assert.equal(view.admit(decision(0, { subjects: ['client:c', 'credential:c'] }), since(1), at(2)), 'cacheable');
    for (const subjects of [['client:c'], ['credential:c']])
      assert.equal(view.admit(decision(0, { subjects }), since(1), at(2)), 'usable-once');
  });
});

describe('floor', () => {
  it('refuses decisions read before the first change that was loaded', () => {
    const log = new ChangeLog();
    for (let i = 0; i < 5; i++) log.append([`user:${i}`]);
    const view = new RevocationView({ longestLifeMs: 1000 });
    const question = view.question(at(0));
    view.learn(question, log.answer(question, 3), at(1));
    assert.equal(view.floor, 3);
    assert.equal(view.check(decision(2), at(1)), 'below-floor');
    assert.equal(view.check(decision(3), at(1)), 'usable');
    assert.equal(view.check(decision(3, { subjects: ['user:4'] }), at(1)), 'tombstoned');
  });

  it('rises over every tombstone that is dropped', () => {
    const log = new ChangeLog();
    const view = started(log);
    log.append(['key:k']);
    const question = view.question(at(10));
    view.learn(question, log.answer(question), at(10));
    view.prune(at(10 + 300_000));
    assert.equal(view.tombstoneCount, 1);
    view.prune(at(10 + 300_001));
    assert.equal(view.tombstoneCount, 0);
    const late = view.question(at(310_000));
    view.learn(late, log.answer(late), at(310_000));
    assert.equal(view.check(decision(0), at(310_000)), 'below-floor');
    assert.equal(view.check(decision(1), at(310_000)), 'usable');
  });
});

/**
 * One gateway against a true log, with everything between them lossy, late, doubled, reordered or forged. A decision is
 * read from the log's own state; whatever the view then lets through is held against the guarantee.
 */
describe('guarantee, over random schedules', () => {
  const users = ['user:0', 'user:1', 'user:2'];
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ do: fc.constant('revoke' as const), user: fc.nat(2) }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant('signal' as const), seq: fc.nat(4), repeat: fc.boolean() }) },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constant('forge' as const),
        seq: fc.nat(14),
        user: fc.nat(2),
        chained: fc.boolean(),
      }),
    },
    { weight: 4, arbitrary: fc.record({ do: fc.constant('ask' as const) }) },
    { weight: 5, arbitrary: fc.record({ do: fc.constant('answer' as const), which: fc.nat(3), loses: fc.boolean() }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('exchange' as const), user: fc.nat(2) }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant('arrive' as const), which: fc.nat(3) }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 700 }) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('promote' as const), lost: fc.nat(2) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('prune' as const) }) },
  );

  it('nothing is accepted longer than D after its revocation, nor on a snapshot older than an applied tombstone', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 60, maxLength: 120, size: 'max' }), (steps) => {
        const maxStalenessMs = 1000;
        const longestLifeMs = 5000;
        let now = 0;
        const log = new ChangeLog();
        /** Commit time of every revocation of a user, whatever epoch; a promotion that loses commits un-revokes. */
        let revokedAt: { user: string; seq: number; committedAt: number }[] = [];
        const view = new RevocationView({ longestLifeMs });
        const start = view.question(at(0));
        view.learn(start, log.answer(start), at(0));
        const asked: { question: WatermarkQuestion; answer: WatermarkAnswer }[] = [];
        const exchanges: { facts: DecisionFacts; asked: Asked; user: string }[] = [];
        const cached: (CachedDecision & { user: string })[] = [];
        const mustNotAccept = (user: string, asOf: number, boundMs: number) => {
          for (const revocation of revokedAt) {
            if (revocation.user !== user || revocation.seq <= asOf) continue;
            assert.ok(
              now < revocation.committedAt + boundMs,
              `accepted ${now - revocation.committedAt} ms after the commit`,
            );
            assert.ok(view.epoch !== log.epoch || revocation.seq > view.applied, 'accepted under an applied tombstone');
          }
        };
        for (const action of steps) {
          switch (action.do) {
            case 'revoke': {
              const user = `user:${action.user}`;
              log.append([user]);
              revokedAt.push({ user, seq: log.seq, committedAt: now });
              break;
            }
            case 'signal': {
              const change = log.changes[log.seq - 1 - action.seq];
              if (change === undefined) break;
              view.hear(change, at(now));
              if (action.repeat) view.hear(change, at(now));
              break;
            }
            case 'forge': {
              const seq = Math.max(1, log.seq - 2 + action.seq);
              const content: ChangeContent = {
                type: 'tg.user.changed',
                subjects: [users[action.user] ?? ''],
                actor: 'forger',
                at: '2026-01-01T00:00:00.000Z',
              };
              const previous = log.chainAt(seq - 1) ?? genesisChain;
              const chain = action.chained
                ? nextChain(previous, log.epoch, seq, changePayload(content))
                : 'a'.repeat(64);
              view.hear({ ...content, epoch: log.epoch, seq, chain }, at(now));
              break;
            }
            case 'ask': {
              const question = view.question(at(now));
              asked.push({ question, answer: log.answer(question) });
              break;
            }
            case 'answer': {
              const [pair] = asked.splice(action.which % Math.max(1, asked.length), 1);
              if (pair !== undefined && !action.loses) {
                const { outcome } = view.learn(pair.question, pair.answer, at(now));
                assert.notEqual(outcome, 'contradiction');
              }
              break;
            }
            case 'exchange': {
              const user = `user:${action.user}`;
              const facts = {
                asOf: { epoch: log.epoch, seq: log.seq },
                subjects: ['tenant:t', user, `key:${action.user}`],
                maxStalenessMs,
              };
              exchanges.push({ facts, asked: view.asking(at(now)), user });
              break;
            }
            case 'arrive': {
              const [result] = exchanges.splice(action.which % Math.max(1, exchanges.length), 1);
              if (result === undefined) break;
              const admission = view.admit(result.facts, result.asked, at(now));
              if (admission !== 'cacheable' && admission !== 'usable-once') break;
              if (result.facts.asOf.epoch === log.epoch) {
                mustNotAccept(result.user, result.facts.asOf.seq, exchangeAgeBoundMs(maxStalenessMs));
              }
              if (admission === 'cacheable') {
                const expiresAt = at(result.asked.askedAt.monotonicMs + longestLifeMs);
                cached.push({ ...result.facts, user: result.user, expiresAt });
              }
              break;
            }
            case 'wait':
              now += action.ms;
              break;
            case 'promote': {
              const kept = Math.max(0, log.seq - action.lost);
              log.changes = log.changes.slice(0, kept);
              log.epoch += 1;
              revokedAt = revokedAt.filter((revocation) => revocation.seq <= kept);
              // Answers of the deposed primary still arrive; its exchanges belong to the replaced history.
              break;
            }
            case 'prune':
              view.prune(at(now));
              break;
          }
          for (const entry of cached) {
            if (view.check(entry, at(now)) !== 'usable') continue;
            assert.ok(entry.asOf.epoch === view.epoch);
            if (entry.asOf.epoch === log.epoch) mustNotAccept(entry.user, entry.asOf.seq, maxStalenessMs);
          }
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('a valid decision is usable again after one watermark, whatever was heard before', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ seq: fc.integer({ min: 1, max: 50 }), user: fc.nat(2) }), { maxLength: 30 }),
        (forgeries) => {
          const log = new ChangeLog();
          const view = started(log);
          log.append(['user:0']);
          for (const { seq, user } of forgeries) {
            view.hear(
              {
                epoch: 1,
                seq,
                chain: 'b'.repeat(64),
                type: 'tg.user.changed',
                subjects: [`user:${user}`],
                actor: 'forger',
                at: '',
              },
              at(1),
            );
          }
          const question = view.question(at(2));
          view.learn(question, log.answer(question), at(3));
          assert.equal(view.check(decision(1, { subjects: ['tenant:t', 'user:0', 'key:k'] }), at(3)), 'usable');
        },
      ),
    );
  });
});
