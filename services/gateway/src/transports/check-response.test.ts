import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CheckResponse } from '@token-gateway/schemas/ext-authz';
import { defaultCredentialConfig } from '../decision/credential.ts';
import { requestOfEnvoy } from './check-request.testing.ts';
import { OkAnswers } from './check-response.ts';
import type { HeaderNames } from './header-names.ts';

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
    const answers = new OkAnswers(defaultCredentialConfig, [], { matches: () => false, patterns: [] });
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
    const answers = new OkAnswers(defaultCredentialConfig, [], {
      matches: (name) => forgeable.includes(name),
      patterns: forgeable,
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
});
