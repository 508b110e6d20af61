import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Sender } from './sender.ts';
import { Stream } from './stream.ts';

const windowMax = 0x7fffffff;
const answer = Buffer.alloc(16_000);

function stream(id: number): Stream {
  const request = { method: '', handler: null, refusal: null, contentLength: -1, deadlineMs: 0 };
  return new Stream(id, { address: '', port: 0, certificate: () => undefined }, request, {
    receive: 0,
    send: windowMax,
  });
}

describe('answers that are written at once', () => {
  it('are bounded, however many small requests came at once; the rest is written when those have left', () => {
    const sender = new Sender();
    sender.widen(windowMax - 65_535);
    const count = 500;
    const written = Array.from({ length: count }, (_, index) => sender.answer(stream(2 * index + 1), answer));
    const done = written.filter(Boolean).length;
    // Beside the answers, every stream has begun with its headers.
    assert.ok(sender.output.length < 1.2 * 1024 * 1024, `${sender.output.length} octets`);
    assert.ok(done > 60 && done < 70, `${done} of ${count}`);
    let resumed = 0;
    for (let rounds = 0; sender.isWaiting; rounds += 1) {
      assert.ok(rounds < 20);
      sender.output.take();
      sender.resume(() => {
        resumed += 1;
      });
      assert.ok(sender.output.length < 1.2 * 1024 * 1024);
    }
    assert.equal(done + resumed, count);
  });
});
