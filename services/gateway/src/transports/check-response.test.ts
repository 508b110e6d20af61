import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CheckResponse } from '@token-gateway/schemas/ext-authz';
import fc from 'fast-check';
import { defaultCredentialConfig } from '../decision/credential.ts';
import { requestOfEnvoy } from './check-request.testing.ts';
import { OkAnswers } from './check-response.ts';
import type { HeaderNames } from './header-names.ts';
import { createHeaderTest } from './identity-headers.ts';

/** One whose headers are the client's own. */
const request = requestWith([]);

function requestWith(names: readonly string[], known?: HeaderNames) {
  return requestOfEnvoy(
    names.map((name) => [name, '1']),
    {},
    {},
    known,
  );
}

describe('an answer that lets in', () => {
  it('is one message as any encoder writes it, however long, and whatever it tells the caller', () => {
    const answers = new OkAnswers(defaultCredentialConfig, [], createHeaderTest([]));
    for (const length of [1, 60, 80, 100, 127, 128, 16_200, 16_300, 16_384, 70_000]) {
      const headers = [['authorization', 'a'.repeat(length)]] as const;
      const allowed = { outcome: 'allow', kind: 'jwt', token: '', headers } as const;
      const first = ['ratelimit-policy', '"key";q=1;w=60'] as const;
      const second = ['ratelimit', 'é'.repeat(length)] as const;
      for (const told of [undefined, [first], [second], [first, second]]) {
        const decision = told === undefined ? allowed : { ...allowed, answerHeaders: told };
        const bytes = answers.of(decision, request);
        const read = CheckResponse.decode(bytes);
        assert.deepEqual(Buffer.from(CheckResponse.encode(read).finish()), Buffer.from(bytes));
        const ok = read.httpResponse?.$case === 'okResponse' ? read.httpResponse.value : assert.fail();
        assert.equal(ok.headers[0]?.header?.value.length, length);
        assert.deepEqual(
          ok.responseHeadersToAdd.map(({ header, append }) => [header?.key, header?.value, append]),
          (told ?? []).map(([name, text]) => [name, text, true]),
        );
      }
    }
  });

  it('takes off what is forged wherever it stands, whatever stood there before', () => {
    const forgeable = ['x-user', 'x-role', 'x-user-id', 'x-user-ad'];
    // None is told apart by its length and two octets alone.
    const answers = new OkAnswers(defaultCredentialConfig, [], {
      matches: (name) => forgeable.includes(name),
      patterns: ['*'],
    });
    const allowed = { outcome: 'allow', kind: 'jwt', token: '', headers: [] } as const;
    const removed = (names: readonly string[]) => {
      const { httpResponse } = CheckResponse.decode(answers.of(allowed, requestWith(names, answers.names)));
      return httpResponse?.$case === 'okResponse' ? httpResponse.value.headersToRemove.slice(2) : assert.fail();
    };
    const others = Array.from({ length: 70 }, (_, at) => `x-other-${at}`);
    for (const before of [[], others]) {
      const honest = [...before, 'x-usee', 'x-rolf', 'a-user'];
      for (let count = 0; count < 3; count += 1) assert.deepEqual(removed(honest), []);
      assert.deepEqual(removed([...before, 'x-user', 'x-role', 'a-user']), ['x-user', 'x-role']);
      assert.deepEqual(removed([...before, 'x-role', 'X-User', 'x-user']), ['x-role', 'x-user']);
      for (let count = 0; count < 3; count += 1) assert.deepEqual(removed([...before, 'X-USER']), ['x-user']);
      assert.deepEqual(removed(honest), []);
      // As long as each other, and the same where they are told apart first.
      for (let count = 0; count < 3; count += 1) {
        assert.deepEqual(removed([...before, 'x-uzer-id', 'y-user-id']), []);
        assert.deepEqual(removed([...before, 'x-user-id']), ['x-user-id']);
        assert.deepEqual(removed([...before, 'x-uzer-id', 'x-user-ad']), ['x-user-ad']);
      }
      assert.deepEqual(removed([...before, '', 'x', 'x-user-id', 'x-uzer-id', 'X-User-AD']), [
        'x-user-id',
        'x-user-ad',
      ]);
    }
  });

  it('takes off what is forged however it is spelled, also where other rules are in force than when it was read', () => {
    const pattern = fc
      .tuple(textOf('x-_aA0', { minLength: 1, maxLength: 33 }), fc.constantFrom('', '*'))
      .map(([begin, end]) => begin + end);
    const patterns = fc.array(pattern, { maxLength: 4 });
    const allowed = { outcome: 'allow', kind: 'jwt', token: '', headers: [] } as const;
    fc.assert(
      fc.property(
        patterns,
        patterns,
        fc.array(textOf('xX-_.aA0\u00c4', { maxLength: 36 })),
        fc.infiniteStream(fc.nat(3)),
        (before, now, others, spelling) => {
          const respelled = (text: string) => [...text].map((each) => spell(each, spelling.next().value)).join('');
          const begins = [...before, ...now].map((each) => each.replace('*', ''));
          const sent = [
            ...others,
            ...begins.map(respelled),
            ...begins.map((begin) => respelled(begin) + (others[0] ?? 'a')),
          ];
          const [was, is] = [createHeaderTest(before), createHeaderTest(now)];
          const answers = new OkAnswers(defaultCredentialConfig, [], is);
          for (const names of [new OkAnswers(defaultCredentialConfig, [], was).names, answers.names]) {
            const read = requestWith(sent, names);
            const lower = sent.map((name) => Buffer.from(name).toString('latin1').toLowerCase());
            const forged = [...new Set(lower.filter((name) => is.matches(name)))];
            for (let count = 0; count < 2; count += 1) {
              const { httpResponse } = CheckResponse.decode(answers.of(allowed, read));
              const { headersToRemove } = httpResponse?.$case === 'okResponse' ? httpResponse.value : assert.fail();
              assert.deepEqual(headersToRemove.slice(2), forged);
            }
          }
        },
      ),
      { numRuns: 1000 },
    );
  });
});

const textOf = (characters: string, sizes: { minLength?: number; maxLength: number }) =>
  fc.array(fc.constantFrom(...characters), sizes).map((all) => all.join(''));

/** One of those that are the same in a name. */
function spell(character: string, which: number): string {
  if (/[-_]/.test(character)) return ['-', '_', '.', '\u00c4'][which] ?? '-';
  return which % 2 === 0 ? character.toLowerCase() : character.toUpperCase();
}
