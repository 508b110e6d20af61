import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, it, type TestContext } from 'node:test';
import { createTestClock } from './clock/test.ts';
import { startHealthServer } from './health.ts';
import { createLifecycle } from './lifecycle.ts';
import { createSilentTelemetry } from './telemetry.ts';

async function setUp(test: TestContext, ready: () => Promise<string[]>) {
  const { logger, registry } = createSilentTelemetry();
  const lifecycle = createLifecycle(logger);
  const clock = createTestClock();
  const { port } = await startHealthServer({ host: '127.0.0.1', port: 0, registry, ready, lifecycle, clock });
  test.after(() => lifecycle.close());
  const get = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`);
    return { status: response.status, text: await response.text() };
  };
  return { get, registry, lifecycle, clock };
}

describe('health server', () => {
  it('is ready without reasons, and otherwise answers 503 with each of them', async (test) => {
    let reasons: string[] = [];
    const { get } = await setUp(test, async () => reasons);
    assert.deepEqual(await get('/readyz'), { status: 200, text: '{"ready":true,"reasons":[]}' });
    reasons = ['the database does not answer', 'no signing key'];
    assert.deepEqual(await get('/readyz'), { status: 503, text: JSON.stringify({ ready: false, reasons }) });
    assert.equal((await get('/healthz')).status, 200);
  });

  it('is not ready when readiness cannot be found out, and keeps the error to itself', async (test) => {
    const { get } = await setUp(test, () => Promise.reject(new Error('hunter2')));
    const { status, text } = await get('/readyz');
    assert.equal(status, 503);
    assert.ok(!text.includes('hunter2'));
  });

  it('is not ready when the answer does not come in time', async (test) => {
    const asked = Promise.withResolvers<void>();
    const { get, clock } = await setUp(test, () => {
      asked.resolve();
      return new Promise(() => {});
    });
    const answer = get('/readyz');
    await asked.promise;
    await clock.advance(2_000);
    assert.equal((await answer).status, 503);
  });

  it('turns not ready before anything is released', async (test) => {
    const { get, lifecycle } = await setUp(test, async () => []);
    const seen: number[] = [];
    lifecycle.onClose('resource', async () => void seen.push((await get('/readyz')).status));
    await lifecycle.close();
    assert.deepEqual(seen, [503]);
  });

  it('serves the registry', async (test) => {
    const { get, registry } = await setUp(test, async () => []);
    assert.equal((await get('/metrics')).text, await registry.metrics());
    assert.equal((await get('/other')).status, 404);
  });

  it('closes a connection whose request does not arrive in time', { timeout: 10_000 }, async (test) => {
    const { logger, registry } = createSilentTelemetry();
    const lifecycle = createLifecycle(logger);
    const limits = { host: '127.0.0.1', port: 0, requestTimeoutMs: 100 };
    const { port } = await startHealthServer({ ...limits, registry, ready: async () => [], lifecycle });
    test.after(() => lifecycle.close());
    for (const begin of ['', 'GET /healthz HTTP/1.1\r\nHost: a\r\n']) {
      const socket = connect(port, '127.0.0.1');
      await once(socket, 'connect');
      socket.write(begin);
      await text(socket);
    }
  });
});
