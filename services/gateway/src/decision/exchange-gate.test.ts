import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ServiceError } from '@token-gateway/platform';
import { createTestClock } from '@token-gateway/platform/testing';
import { ExchangeGate } from './exchange-gate.ts';

describe('the gate of exchanges', () => {
  const concurrencyMax = 64;

  function opened() {
    const clock = createTestClock();
    const gate = new ExchangeGate(clock, { concurrencyMax, queueMax: 1000, queueTimeoutMs: 60_000 });
    const underWay: PromiseWithResolvers<void>[] = [];
    const ask = () =>
      gate.run(true, () => {
        const task = Promise.withResolvers<void>();
        underWay.push(task);
        return task.promise;
      });
    return { clock, gate, underWay, ask };
  }

  async function settleAll(underWay: PromiseWithResolvers<void>[], error?: Error): Promise<void> {
    for (const task of underWay.splice(0)) error === undefined ? task.resolve() : task.reject(error);
    await new Promise(setImmediate);
  }

  it('asks for fewer at once while they are slow, and for more again when they are not', async () => {
    const { clock, gate, underWay, ask } = opened();
    const asked = Array.from({ length: 300 }, ask);
    await new Promise(setImmediate);
    assert.equal(gate.running, concurrencyMax);
    await clock.advance(1000);
    await settleAll(underWay);
    assert.equal(gate.running, 4);
    for (let expected = 8; expected <= concurrencyMax; expected *= 2) {
      await settleAll(underWay);
      assert.equal(gate.running, expected);
    }
    while (underWay.length > 0) await settleAll(underWay);
    await Promise.all(asked);
  });

  it('runs what nobody waits for only while no one waits and half of the room is left', async () => {
    const { gate, underWay, ask } = opened();
    const spare = () => {
      const task = Promise.withResolvers<void>();
      const run = gate.runInSpareRoom(() => task.promise);
      if (run !== null) underWay.push(task);
      return run;
    };
    const begun = Array.from({ length: concurrencyMax }, spare).filter((run) => run !== null);
    assert.equal(begun.length, concurrencyMax / 2);
    const asked = Array.from({ length: concurrencyMax }, ask);
    await new Promise(setImmediate);
    assert.equal(gate.running, concurrencyMax, 'the other half was there for requests');
    assert.equal(gate.waiting, concurrencyMax / 2);
    const [first, ...others] = underWay.splice(0);
    others.slice(0, concurrencyMax / 2).forEach((task) => void task.resolve());
    await new Promise(setImmediate);
    first?.resolve();
    await new Promise(setImmediate);
    assert.equal(gate.waiting, 0, 'what waits is asked first');
    others.forEach((task) => void task.resolve());
    while (underWay.length > 0) await settleAll(underWay);
    await Promise.all([...begun, ...asked]);
  });

  it('leaves it to requests to ask while exchanges are in vain, and asks for what nobody waits for when there are none', async () => {
    const { clock, gate, underWay, ask } = opened();
    await clock.advance(1000);
    const failed = Promise.allSettled(Array.from({ length: 16 }, ask));
    await new Promise(setImmediate);
    await settleAll(underWay, new ServiceError('auth_server_unavailable'));
    await failed;
    const probe = assert.rejects(ask());
    await new Promise(setImmediate);
    await settleAll(underWay, new ServiceError('auth_server_unavailable'));
    await probe;
    const done = async () => 'done';
    await clock.advance(99);
    assert.equal(gate.runInSpareRoom(done), null);
    await clock.advance(1);
    assert.equal(await gate.runInSpareRoom(done), 'done');
  });

  it('asks for fewer at once while they are in vain, but not because one provider is away, or nobody gets a token', async () => {
    for (const [code, running] of [
      ['identity_unavailable', 4],
      ['provider_unavailable', concurrencyMax],
      ['decision_unavailable', concurrencyMax],
    ] as const) {
      const { gate, underWay, ask } = opened();
      // Fewer in a row than an outage.
      const failed = Promise.allSettled(Array.from({ length: 15 }, ask));
      await new Promise(setImmediate);
      await settleAll(underWay, new ServiceError(code));
      assert.ok((await failed).every(({ status }) => status === 'rejected'));
      const asked = Array.from({ length: concurrencyMax }, ask);
      await new Promise(setImmediate);
      assert.equal(gate.running, running);
      while (underWay.length > 0) await settleAll(underWay);
      await Promise.all(asked);
    }
  });

  it('sheds whoever waits longest when one more comes than can wait', async () => {
    const clock = createTestClock();
    const gate = new ExchangeGate(clock, { concurrencyMax: 2, queueMax: 2, queueTimeoutMs: 60_000 });
    const underWay: PromiseWithResolvers<string>[] = [];
    const ask = (name: string) =>
      gate
        .run(false, () => {
          const task = Promise.withResolvers<string>();
          underWay.push(task);
          return task.promise.then(() => name);
        })
        .catch((error: unknown) => `${name} ${error instanceof ServiceError ? error.code : 'failed'}`);
    const asked = ['first', 'second', 'third', 'fourth'].map(ask);
    await new Promise(setImmediate);
    assert.equal(await asked[1], 'second overloaded');
    assert.equal(gate.waiting, 2);
    while (gate.running > 0) {
      for (const task of underWay.splice(0)) task.resolve('');
      await new Promise(setImmediate);
    }
    assert.deepEqual(await Promise.all(asked), ['first', 'second overloaded', 'third', 'fourth']);
  });

  it('asks for nobody who was given up while it waited, and has room for the next', async () => {
    const gate = new ExchangeGate(createTestClock(), { concurrencyMax: 2, queueMax: 10, queueTimeoutMs: 60_000 });
    const first = Promise.withResolvers<string>();
    let isGivenUp = false;
    const asked: string[] = [];
    const ask = (name: string, isAsked: () => boolean = () => false) =>
      gate.run(false, async () => asked.push(name), isAsked);
    const running = gate.run(false, () => first.promise);
    const ofFlood = ['second', 'third'].map((name) =>
      assert.rejects(
        ask(name, () => isGivenUp),
        { code: 'overloaded' },
      ),
    );
    const good = ask('good');
    isGivenUp = true;
    first.resolve('');
    await Promise.all([running, ...ofFlood, good]);
    assert.deepEqual(asked, ['good']);
  });
});
