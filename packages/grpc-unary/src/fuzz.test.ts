/** Frames that nobody would send, in chunks that nobody would cut: no crash, no answer to what was not asked. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { fuzzConnection, hostileInput, orderlyCalls } from './fuzz.testing.ts';

const corpus = join(import.meta.dirname, '../corpus');
const numRuns = Number(process.env['GRPC_UNARY_FUZZ_RUNS'] ?? 300);

describe('a connection', () => {
  it('survives what it is sent, and answers no more than it was asked', () => {
    fc.assert(
      fc.property(hostileInput, (input) => void fuzzConnection(input)),
      { numRuns },
    );
  });

  it('answers each call with its own message, however they are cut, padded and mixed with others', () => {
    fc.assert(
      fc.property(orderlyCalls, ({ bytes, cuts, messages }) => {
        const { answers, failures } = fuzzConnection({ bytes, cuts });
        assert.deepEqual(failures, []);
        assert.deepEqual(answers, messages);
      }),
      { numRuns },
    );
  });

  for (const name of readdirSync(corpus)) {
    it(`survives ${name}`, () => {
      const bytes = Buffer.from(readFileSync(join(corpus, name), 'latin1').replaceAll(/\s|#.*$/gm, ''), 'hex');
      fuzzConnection({ bytes, cuts: [] });
      fuzzConnection({ bytes, cuts: [...bytes].map(() => 1) });
    });
  }
});
