import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ServiceError } from '@token-gateway/platform';
import { readExchangeAnswer } from './answer.ts';

const granted = {
  access_token: 'token',
  token_type: 'Bearer',
  expires_in: 300,
  as_of: { epoch: 1, seq: 2 },
  subjects: ['key:k'],
  max_staleness_ms: 1000,
};

const badQuotas = [
  [],
  [{ subject: 'key:k', requests: 0, window_seconds: 60 }],
  [{ subject: 'tenant:t', requests: 1, window_seconds: 60 }],
  [{ subject: 'key:k', requests: 1, window_seconds: 60, burst: 2 }],
].map((quotas) => ({ quotas }));

const isUnavailable = (error: unknown) => error instanceof ServiceError && error.code === 'auth_server_unavailable';

describe('answer of the token endpoint', () => {
  it('that grants carries the facts the use-check needs, and an end counted from before the request', () => {
    assert.deepEqual(readExchangeAnswer(200, granted, 5000), {
      outcome: 'granted',
      token: 'token',
      tokenExpiresAtMs: 305_000,
      facts: { asOf: { epoch: 1, seq: 2 }, subjects: ['key:k'], maxStalenessMs: 1000 },
      conditions: null,
    });
  });

  it('that lacks any of the facts is no grant', () => {
    for (const missing of ['access_token', 'expires_in', 'as_of', 'subjects', 'max_staleness_ms']) {
      const body = Object.fromEntries(Object.entries(granted).filter(([name]) => name !== missing));
      assert.throws(() => readExchangeAnswer(200, body, 0), isUnavailable);
    }
  });

  it('that grants with quotas carries them', () => {
    const conditions = { quotas: [{ subject: 'key:k', requests: 10, window_seconds: 60 }] };
    const answer = readExchangeAnswer(200, { ...granted, conditions }, 0);
    assert.deepEqual(answer.outcome === 'granted' && answer.conditions, conditions);
  });

  it('that grants under a condition which is not understood is a refusal that is kept nowhere', () => {
    for (const conditions of [{ cidrs: [] }, { jkt: 'short' }, { later: true }, null, 'any', ['x'], 1, ...badQuotas]) {
      assert.deepEqual(readExchangeAnswer(200, { ...granted, conditions }, 0), {
        outcome: 'refused',
        code: 'condition_unknown',
        facts: null,
      });
    }
    assert.equal(readExchangeAnswer(200, { ...granted, conditions: {} }, 0).outcome, 'granted');
  });

  it('that refuses the credential is a refusal with its code; without a place in the log it is kept nowhere', () => {
    const facts = { as_of: { epoch: 1, seq: 2 }, subjects: ['key:k'] };
    assert.deepEqual(readExchangeAnswer(400, { error: 'invalid_grant', code: 'key_revoked', ...facts }, 0), {
      outcome: 'refused',
      code: 'key_revoked',
      facts: { asOf: facts.as_of, subjects: facts.subjects },
    });
    assert.deepEqual(readExchangeAnswer(400, { error: 'invalid_grant', code: 'no such code' }, 0), {
      outcome: 'refused',
      code: 'credential_malformed',
      facts: null,
    });
  });

  it('that says something of the gateway, or nothing at all, is never a refusal of the caller', () => {
    for (const [status, body] of [
      [401, { error: 'invalid_client' }],
      [400, { error: 'invalid_request' }],
      [400, { error: 'unauthorized_client' }],
      [503, { error: 'temporarily_unavailable' }],
      [200, {}],
      [200, null],
      [500, 'oops'],
    ] as const) {
      assert.throws(() => readExchangeAnswer(status, body, 0), isUnavailable);
    }
  });

  it('that says that the provider is away is told from one that concerns every credential', () => {
    const body = { error: 'temporarily_unavailable', code: 'provider_unavailable' };
    assert.throws(
      () => readExchangeAnswer(503, body, 0),
      (error) => error instanceof ServiceError && error.code === 'provider_unavailable',
    );
    assert.throws(() => readExchangeAnswer(500, body, 0), isUnavailable);
  });
});
