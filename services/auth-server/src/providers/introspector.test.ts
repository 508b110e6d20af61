import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import type { Provider } from '@token-gateway/schemas/identity';
import { createIntrospector } from './introspector.ts';

const providerOf = (id: string): Provider => ({
  id,
  tenantId: 'ten_1',
  issuer: 'https://provider.example',
  audiences: ['api'],
  jwksUri: '',
  algorithms: [],
  claimMappingJson: '',
  revision: 1,
});
const rulesOf = (id: string) => ({ endpoint: `https://${id}.example`, clientId: 'c', tokenPrefix: `${id}_` });

/** Providers that answer when the test says so. */
function started(concurrencyMax: number) {
  const waiting: { url: string; answer: (value: unknown) => void; fail: (error: Error) => void }[] = [];
  const introspect = createIntrospector(
    {
      post: (url) => new Promise((answer, fail) => waiting.push({ url, answer, fail })),
      secrets: { find: async (id) => (id === 'none' ? null : 'secret') },
      ...createSilentTelemetry(),
    },
    { timeoutMs: 1000, concurrencyMax },
  );
  const ask = (id: string) => introspect(providerOf(id), rulesOf(id), 'token');
  return { ask, waiting };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

suite('a question to a provider', () => {
  test('is not asked where too many are under way there, while another provider is', async () => {
    const { ask, waiting } = started(2);
    const slow = [ask('slow'), ask('slow')];
    const [beyond, other] = [ask('slow'), ask('other')];
    beyond.catch(() => {});
    await turn();
    assert.deepEqual(
      waiting.map(({ url }) => url),
      ['https://slow.example', 'https://slow.example', 'https://other.example'],
    );
    await assert.rejects(beyond, { code: 'provider_unavailable' });
    for (const { answer } of waiting) answer({ active: false });
    await Promise.all([...slow, other]);
    const again = ask('slow');
    await turn();
    waiting.at(-1)?.answer({ active: true });
    assert.deepEqual(await again, { active: true });
  });

  test('that failed makes room for the next', async () => {
    const { ask, waiting } = started(1);
    const failing = ask('slow');
    await turn();
    waiting[0]?.fail(new Error('away'));
    await assert.rejects(failing, /away/);
    const next = ask('slow');
    await turn();
    waiting[1]?.answer({});
    assert.deepEqual(await next, {});
  });

  test('is not asked without a secret', async () => {
    const { ask, waiting } = started(1);
    await assert.rejects(ask('none'), { code: 'provider_unavailable' });
    await assert.rejects(ask('none'), { code: 'provider_unavailable' });
    assert.equal(waiting.length, 0);
  });
});
