import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { createTestClock } from './clock/test.ts';
import { createLifecycle } from './lifecycle.ts';
import { createSilentTelemetry } from './telemetry.ts';

const { logger } = createSilentTelemetry();

describe('lifecycle', () => {
  it('releases in reverse order, one after the other, and goes on when one fails', async () => {
    const lifecycle = createLifecycle(logger);
    const released: string[] = [];
    lifecycle.onClose('first', async () => void released.push('first'));
    lifecycle.onClose('second', async () => {
      released.push('second');
      throw new Error('broken');
    });
    lifecycle.onClose('third', async () => {
      await Promise.resolve();
      released.push('third');
    });
    await lifecycle.close();
    assert.deepEqual(released, ['third', 'second', 'first']);
  });

  it('closes once, however often it is asked, and says so before anything is released', async () => {
    const lifecycle = createLifecycle(logger);
    let releases = 0;
    lifecycle.onClose('resource', async () => {
      assert.ok(lifecycle.ending.aborted);
      releases += 1;
    });
    await Promise.all([lifecycle.close(), lifecycle.close()]);
    await lifecycle.close();
    assert.equal(releases, 1);
  });

  it('goes on when a release overruns its deadline', async () => {
    const clock = createTestClock();
    const lifecycle = createLifecycle(logger, { clock });
    const released: string[] = [];
    lifecycle.onClose('after', async () => void released.push('after'));
    lifecycle.onClose('stuck', () => new Promise(() => {}), 1_000);
    const closed = lifecycle.close();
    await clock.advance(999);
    assert.deepEqual(released, []);
    await clock.advance(1);
    await closed;
    assert.deepEqual(released, ['after']);
    assert.equal(clock.pendingTimers, 0);
  });

  it('says at once that the end has begun when it drains, and releases nothing before the time is over', async () => {
    const clock = createTestClock();
    const lifecycle = createLifecycle(logger, { clock });
    let isDrained = false;
    lifecycle.onClose('resource', async () => assert.ok(isDrained));
    const closed = lifecycle.drain(3_000).then(() => {
      isDrained = true;
      return lifecycle.close();
    });
    assert.ok(lifecycle.ending.aborted);
    await clock.advance(2_999);
    assert.equal(isDrained, false);
    await clock.advance(1);
    await closed;
  });

  it('releases what is acquired after closing has begun', async () => {
    const lifecycle = createLifecycle(logger);
    await lifecycle.close();
    const released: string[] = [];
    lifecycle.onClose('late', async () => void released.push('late'));
    await lifecycle.close();
    assert.deepEqual(released, ['late']);
  });
});

/** A service process that runs `body` as its start; the child says READY itself. */
function startService(body: string, env: NodeJS.ProcessEnv = {}) {
  const lifecycleModule = JSON.stringify(new URL('./lifecycle.ts', import.meta.url));
  const configModule = JSON.stringify(new URL('./config.ts', import.meta.url));
  const code = `
    import { runService } from ${lifecycleModule};
    import { loadConfig, secret, commonFields } from ${configModule};
    await runService('probe', async ({ env, lifecycle, logger }) => { ${body} });`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', code], {
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exit = once(child, 'exit').then(([exitCode]) => exitCode as number | null);
  return { child, exit, output: text(child.stdout), errors: text(child.stderr) };
}

describe('a service process', () => {
  it('exits with 1 and one line naming every problem when its configuration is not valid', async () => {
    const { exit, output, errors } = startService("loadConfig({ ...commonFields, key: secret('TG_KEY') }, env);", {
      TG_LOG_LEVEL: 'loud',
      TG_UNKNOWN: 'hunter2',
    });
    assert.equal(await exit, 1);
    assert.equal(
      await errors,
      'probe: the configuration is not valid: TG_LOG_LEVEL must be one of fatal, error, warn, info, debug, trace, silent; TG_KEY is required; TG_UNKNOWN is not known\n',
    );
    assert.equal(await output, '');
  });

  it('exits with 1 when it cannot start, releasing what it had acquired', async () => {
    const { exit, output } = startService(`
      lifecycle.onClose('a', async () => console.log('released'));
      throw new Error('cannot reach it');`);
    assert.equal(await exit, 1);
    assert.match(await output, /cannot reach it[\s\S]*released/);
  });

  const serving = `
    const timer = setInterval(() => {}, 1_000);
    lifecycle.ending.addEventListener('abort', () => console.log('not ready'));
    lifecycle.onClose('a', async () => console.log('released'));`;

  it('is not ready, then releases and exits with 0 on SIGTERM', async () => {
    const { child, exit, output } = startService(serving, { TG_DRAIN_MS: '1' });
    child.stdout.once('data', () => child.kill('SIGTERM'));
    assert.equal(await exit, 0);
    assert.match(await output, /started[\s\S]*closing[\s\S]*not ready[\s\S]*released/);
  });

  it('does not drain on SIGINT: nobody is to wait for the end of a Ctrl-C', async () => {
    const { child, exit, output } = startService(serving, { TG_DRAIN_MS: '600000' });
    child.stdout.once('data', () => child.kill('SIGINT'));
    assert.equal(await exit, 0);
    assert.match(await output, /closing[\s\S]*released/);
  });

  it('ends at once on a second signal, while it drains', async () => {
    const { child, exit, output } = startService(serving, { TG_DRAIN_MS: '600000' });
    child.stdout.on('data', (text) => {
      if (String(text).includes('started')) child.kill('SIGTERM');
      if (String(text).includes('not ready')) child.kill('SIGTERM');
    });
    assert.equal(await exit, 1);
    assert.doesNotMatch(await output, /released/);
  });

  it('exits with 1, without credentials in its last words, when something is thrown that nobody caught', async () => {
    const { exit, output, errors } = startService(`
      lifecycle.onClose('a', async () => console.log('released'));
      void Promise.reject(new Error('lost with tgk_secretsecret'));
      setInterval(() => {}, 1_000);`);
    assert.equal(await exit, 1);
    assert.match(await output, /uncaught error[\s\S]*released/);
    assert.doesNotMatch((await output) + (await errors), /secretsecret/);
  });
});
