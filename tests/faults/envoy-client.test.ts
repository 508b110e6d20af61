import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { createEnvoyClient } from './envoy-client.ts';

/** What an Envoy that answers so is taken to have decided. */
async function outcomeOf(test: TestContext, status: number, headers: Record<string, string> = {}): Promise<string> {
  const server = createServer((_request, response) => response.writeHead(status, headers).end('text')).listen(
    0,
    '127.0.0.1',
  );
  await once(server, 'listening');
  const client = createEnvoyClient(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, 2);
  test.after(() => {
    client.close();
    server.close();
  });
  return (await client.check('Token x')).outcome;
}

describe('a decision as a caller of Envoy sees it', () => {
  it('is a refusal, or no decision, where the service was not asked', async (test) => {
    assert.equal(await outcomeOf(test, 401), 'deny');
    assert.equal(await outcomeOf(test, 403), 'deny');
    assert.equal(await outcomeOf(test, 503), 'unavailable');
    assert.equal(await outcomeOf(test, 429), 'unavailable');
  });

  it('is an accept where the service was asked, whatever it said', async (test) => {
    for (const status of [200, 401, 503]) {
      assert.equal(await outcomeOf(test, status, { 'x-envoy-upstream-service-time': '1' }), 'allow');
    }
  });

  it('is no answer where there is nobody', async () => {
    const client = createEnvoyClient('http://127.0.0.1:1', 2);
    assert.equal((await client.check('Token x')).outcome, 'no-answer');
    client.close();
  });
});
