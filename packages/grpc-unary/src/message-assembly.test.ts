import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Budget } from './budget.ts';
import { MessageAssembly } from './message-assembly.ts';
import { prefixed } from './raw-client.testing.ts';
import { refusals } from './refusal.ts';

const octetsMax = 100;

function assemble(parts: readonly Buffer[], budget = new Budget(1000)) {
  const assembly = new MessageAssembly();
  for (const part of parts) {
    const refusal = assembly.push(part, 0, part.length, octetsMax, budget);
    if (refusal !== null) return { refusal, assembly };
  }
  return { refusal: null, assembly };
}

describe('message', () => {
  it('is the same in however many frames it comes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: octetsMax }), fc.array(fc.nat(20)), (message, lengths) => {
        const bytes = prefixed(message);
        const parts: Buffer[] = [];
        let offset = 0;
        for (const length of lengths) {
          parts.push(bytes.subarray(offset, offset + length));
          offset += length;
        }
        parts.push(bytes.subarray(Math.min(offset, bytes.length)));
        const budget = new Budget(1000);
        const { assembly } = assemble(parts, budget);
        assert.deepEqual(assembly.message, Buffer.from(message));
        assembly.release(budget);
        assert.equal(budget.left, 1000);
      }),
    );
  });

  it('is refused by its prefix: too large, compressed, or beyond what is left of the budget', () => {
    const large = prefixed(Buffer.alloc(octetsMax + 1)).subarray(0, 5);
    assert.equal(assemble([large]).refusal, refusals.messageTooLarge);
    assert.equal(assemble([large.subarray(0, 2), large.subarray(2)]).refusal, refusals.messageTooLarge);
    assert.equal(assemble([prefixed(Buffer.alloc(3), 1)]).refusal, refusals.compressed);
    assert.equal(assemble([prefixed(Buffer.alloc(3), 2)]).refusal, refusals.notOneMessage);
    const begun = prefixed(Buffer.alloc(60)).subarray(0, 20);
    assert.equal(assemble([begun], new Budget(59)).refusal, refusals.noMemory);
    assert.equal(assemble([begun], new Budget(100, new Budget(59))).refusal, refusals.noMemory);
  });

  it('is one: nothing comes behind it, and it is not whole before its end', () => {
    const message = prefixed(Buffer.from('abc'));
    assert.equal(assemble([message, Buffer.of(0)]).refusal, refusals.notOneMessage);
    assert.equal(assemble([Buffer.concat([message, message])]).refusal, refusals.notOneMessage);
    assert.equal(assemble([message.subarray(0, -1)]).assembly.message, null);
    assert.equal(assemble([]).assembly.message, null);
  });

  it('keeps no chunk of many times its size for a handler that answers later', () => {
    const chunk = Buffer.concat([prefixed(Buffer.from('abc')), Buffer.alloc(65_536)]);
    const assembly = new MessageAssembly();
    assembly.push(chunk, 0, 8, octetsMax, new Budget(0));
    assembly.detach();
    assert.deepEqual(assembly.message, Buffer.from('abc'));
    assert.notEqual(assembly.message?.buffer, chunk.buffer);
  });
});
