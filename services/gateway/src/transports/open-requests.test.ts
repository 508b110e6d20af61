import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createTestClock } from '@token-gateway/platform/testing';
import type { RuledDecision } from '../rules/rules.ts';
import { OpenRequests } from './open-requests.ts';

const allow: RuledDecision = { outcome: 'allow', token: 'internal', kind: 'jwt', headers: [] };
const refused: RuledDecision = { outcome: 'deny', code: 'key_revoked' };
const unknown: RuledDecision = { outcome: 'unavailable', code: 'overloaded', retryAfterSeconds: 1 };

function begun() {
  const clock = createTestClock();
  const happened: string[] = [];
  let decide = (): RuledDecision | Promise<RuledDecision> => allow;
  const requests = new OpenRequests({
    decideAgain: ({ path, isAgain }) => {
      assert.equal(isAgain, true);
      happened.push(path);
      return decide();
    },
    clock,
    onCut: (code) => happened.push(`cut: ${code}`),
  });
  const add = (path = '/') =>
    requests.add(
      { method: 'GET', path, header: () => [] },
      {
        hold: () => happened.push('hold'),
        release: () => happened.push('release'),
        cut: (code) => happened.push(code),
      },
    );
  return {
    clock,
    requests,
    add,
    set: (next: typeof decide) => {
      decide = next;
    },
    since: () => happened.splice(0),
  };
}

describe('open requests', () => {
  it('are decided again every 250 ms from when they were let in, and no more when they have ended', async () => {
    const { clock, add, since, requests } = begun();
    const end = add('/a');
    await clock.advance(200);
    add('/b');
    assert.deepEqual(since(), []);
    await clock.advance(50);
    assert.deepEqual(since(), ['/a', 'release']);
    await clock.advance(200);
    assert.deepEqual(since(), ['/b', 'release']);
    end();
    await clock.advance(1000);
    assert.deepEqual(since(), ['/b', 'release', '/b', 'release', '/b', 'release', '/b', 'release']);
    assert.equal(requests.count, 1);
  });

  it('are cut once when they are refused', async () => {
    const { clock, add, set, since, requests } = begun();
    add();
    set(() => refused);
    await clock.advance(2000);
    assert.deepEqual(since(), ['/', 'cut: key_revoked', 'key_revoked']);
    assert.equal(requests.count, 0);
  });

  it('are held up while somebody is asked, and asked about once at a time', async () => {
    const { clock, add, set, since } = begun();
    const answer = Promise.withResolvers<RuledDecision>();
    set(() => answer.promise);
    add();
    await clock.advance(2000);
    assert.deepEqual([...new Set(since())], ['/', 'hold']);
    answer.resolve(allow);
    await clock.advance(0);
    assert.deepEqual(since(), ['release']);
  });

  it('are held up while nobody knows, go on when somebody does, and are cut when that lasts 3 s', async () => {
    const { clock, add, set, since } = begun();
    set(() => unknown);
    add();
    await clock.advance(2500);
    assert.equal(since().at(-1), 'hold');
    set(() => allow);
    await clock.advance(250);
    assert.equal(since().at(-1), 'release');
    set(() => Promise.reject(new Error('broken')));
    await clock.advance(3000);
    assert.equal(since().at(-1), 'hold');
    set(() => new Promise(() => undefined));
    await clock.advance(500);
    assert.equal(since().at(-1), 'decision_unavailable');
  });
});
