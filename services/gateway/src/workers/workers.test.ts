import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { environmentOfWorker } from '../config.ts';
import { mergeMetrics } from './merge-metrics.ts';
import type { ToWorker, WorkerEvents } from './messages.ts';
import { Workers } from './workers.ts';

/** What a test has of one process: it answers like a worker until the test says otherwise. */
class TestProcess {
  readonly number: number;
  readonly #events: WorkerEvents;
  reasons: readonly string[] = [];
  isHeldUp = false;
  isKilled = false;
  wasAskedToEnd = false;

  constructor(number: number, events: WorkerEvents) {
    this.number = number;
    this.#events = events;
  }

  start(): void {
    this.#events.onMessage('started');
  }

  exit(how = 'exit code 1'): void {
    this.#events.onExit(how);
  }

  send(message: ToWorker): void {
    if (this.isHeldUp) return;
    if (message === 'end') this.wasAskedToEnd = true;
    else {
      const { id, question } = message;
      const series = `# HELP a A.\n# TYPE a counter\na{worker="${this.number}"} ${this.number}\n`;
      this.#events.onMessage({ id, answer: question === 'notReady' ? this.reasons : series });
    }
  }

  kill(): void {
    this.isKilled = true;
    this.exit('SIGKILL');
  }
}

async function setUp(count = 2) {
  const clock = createTestClock();
  const { logger, registry } = createSilentTelemetry();
  const processes: TestProcess[] = [];
  const workers = new Workers(
    {
      fork(number, events) {
        const process = new TestProcess(number, events);
        processes.push(process);
        return process;
      },
      clock,
      random: () => 1,
      logger,
      registry,
    },
    count,
  );
  const at = (index: number): TestProcess => processes.at(index) ?? assert.fail('it was not forked');
  const serve = async (): Promise<void> => {
    const started = workers.start();
    at(0).start();
    await clock.advance(0);
    for (const process of processes.slice(1)) process.start();
    await started;
    assert.deepEqual(await workers.notReady(), []);
  };
  return { clock, workers, processes, at, serve };
}

describe('workers', () => {
  it('begin with one alone, so that what hinders all is said once, and the start fails with it', async () => {
    const { clock, workers, processes, at } = await setUp(4);
    const started = workers.start();
    await clock.advance(60_000);
    assert.equal(processes.length, 1);
    at(0).exit();
    await assert.rejects(started, /worker 1 ended before it served: exit code 1/);
    assert.equal(processes.length, 1);
  });

  it('are started when all serve, and not while one does not', async () => {
    const { clock, workers, processes, at } = await setUp(3);
    const started = workers.start();
    at(0).start();
    await clock.advance(0);
    at(1).start();
    assert.deepEqual((await workers.notReady()).sort(), ['worker 3 is being started']);
    at(2).exit();
    await assert.rejects(started, /worker 3/);
    assert.deepEqual(
      processes.map(({ number }) => number),
      [1, 2, 3],
    );
  });

  it('that end are replaced, later each time, and at once again when they have lived', async () => {
    const { clock, processes, at, serve } = await setUp();
    await serve();
    for (const delayMs of [100, 200, 400, 800]) {
      const count = processes.length;
      at(-1).exit('SIGSEGV');
      await clock.advance(delayMs - 1);
      assert.equal(processes.length, count);
      await clock.advance(1);
      assert.equal(processes.length, count + 1);
      assert.equal(at(-1).number, 2);
      at(-1).start();
    }
    await clock.advance(60_000);
    at(-1).exit();
    await clock.advance(100);
    assert.equal(processes.length, 7);
  });

  it('go on while a replacement cannot start; when none is left, it is all over', async (test) => {
    const { clock, workers, at, serve } = await setUp();
    await serve();
    at(1).exit();
    await clock.advance(100);
    at(2).exit();
    await clock.advance(200);
    assert.equal(at(3).number, 2);
    const uncaught = once(process, 'unhandledRejection');
    // The test runner has its own, and would fail the test.
    const others = process.listeners('unhandledRejection').slice(0, -1);
    for (const other of others) process.off('unhandledRejection', other);
    test.after(() => others.forEach((other) => void process.on('unhandledRejection', other)));
    at(0).exit();
    at(3).exit();
    const [error] = (await uncaught) as [Error];
    assert.match(error.message, /no worker is left/);
    await workers.close();
  });

  it('that do not answer are a reason not to be ready, and are killed and replaced', async () => {
    const { clock, workers, processes, at, serve } = await setUp();
    await serve();
    at(1).isHeldUp = true;
    const asked = workers.notReady();
    await clock.advance(1000);
    assert.deepEqual(await asked, ['worker 2 does not answer']);
    await clock.advance(6000);
    assert.equal(at(1).isKilled, false);
    await clock.advance(4000);
    assert.equal(at(1).isKilled, true);
    assert.equal(at(0).isKilled, false);
    await clock.advance(100);
    assert.equal(processes.length, 3);
  });

  it('that answer again in time are not killed', async () => {
    const { clock, at, serve } = await setUp();
    await serve();
    for (let round = 0; round < 5; round += 1) {
      at(1).isHeldUp = true;
      await clock.advance(6000);
      at(1).isHeldUp = false;
      await clock.advance(2000);
    }
    assert.equal(at(1).isKilled, false);
  });

  it('are ready once all are; then one that is being replaced is no reason, while another is ready', async () => {
    const { clock, workers, at } = await setUp();
    const started = workers.start();
    at(0).start();
    await clock.advance(0);
    at(1).start();
    await started;
    at(1).reasons = ['no watermark yet'];
    assert.deepEqual(await workers.notReady(), ['worker 2: no watermark yet']);
    at(1).reasons = [];
    assert.deepEqual(await workers.notReady(), []);
    at(1).exit();
    assert.deepEqual(await workers.notReady(), []);
    at(0).exit();
    assert.deepEqual(await workers.notReady(), ['worker 1 is being started', 'worker 2 is being started']);
  });

  it('are asked to end when it closes, and none is replaced then; one that does not serve yet is killed', async () => {
    const { clock, workers, processes, at, serve } = await setUp();
    await serve();
    at(1).exit();
    await clock.advance(100);
    let isClosed = false;
    const closed = workers.close().then(() => {
      isClosed = true;
    });
    await clock.advance(1000);
    assert.deepEqual([at(0).wasAskedToEnd, at(0).isKilled, at(2).isKilled], [true, false, true]);
    assert.equal(isClosed, false);
    at(0).exit('exit code 0');
    await closed;
    await clock.advance(60_000);
    assert.equal(processes.length, 3);
    assert.equal(clock.pendingTimers, 0);
    // The one before: an end that was asked for is none.
    assert.match(await workers.metrics(), /^tg_gateway_worker_ends_total\{worker="2"\} 1$/m);
  });

  it('have their metrics side by side, with those of who keeps them', async () => {
    const { workers, at, serve, clock } = await setUp();
    await serve();
    const all = await workers.metrics();
    assert.equal(all.match(/^# TYPE a counter$/gm)?.length, 1);
    assert.match(all, /^a\{worker="1"\} 1\na\{worker="2"\} 2$/m);
    assert.match(all, /^tg_gateway_worker_up\{worker="2"\} 1$/m);
    at(1).isHeldUp = true;
    await clock.advance(2000);
    const asked = workers.metrics();
    await clock.advance(1000);
    const rest = await asked;
    assert.match(rest, /^a\{worker="1"\} 1$/m);
    assert.doesNotMatch(rest, /^a\{worker="2"\}/m);
    assert.match(rest, /^tg_gateway_worker_up\{worker="2"\} 0$/m);
    at(1).exit();
    await clock.advance(0);
    assert.match(await workers.metrics(), /^tg_gateway_worker_ends_total\{worker="2"\} 1$/m);
  });
});

describe('metrics of several processes', () => {
  it('keep every series, whatever it is, and describe each metric once', () => {
    const of = (worker: number) =>
      [
        '# HELP h With "words".',
        '# TYPE h histogram',
        `h_bucket{le="1",worker="${worker}"} 1`,
        `h_sum{worker="${worker}"} 0.5`,
        '',
        '# HELP g G.',
        '# TYPE g gauge',
        `g{worker="${worker}"} +Inf`,
        '',
      ].join('\n');
    assert.equal(
      mergeMetrics([of(1), of(2)]),
      [
        '# HELP h With "words".',
        '# TYPE h histogram',
        'h_bucket{le="1",worker="1"} 1',
        'h_sum{worker="1"} 0.5',
        'h_bucket{le="1",worker="2"} 1',
        'h_sum{worker="2"} 0.5',
        '',
        '# HELP g G.',
        '# TYPE g gauge',
        'g{worker="1"} +Inf',
        'g{worker="2"} +Inf',
        '',
      ].join('\n'),
    );
  });
});

describe('what a worker is told', () => {
  it('is a name of its own, and its share of what all may take', () => {
    const edgeLimits = { upstreamTimeoutMs: 1000, idleMs: 1000, connectionsMax: 1000, requestsMax: 10 };
    const config = { workers: 4, cacheBytes: 2 ** 30, exchangesMax: 66, edgeLimits };
    const environment = environmentOfWorker(config, 'edge', 3);
    assert.equal(environment['TG_GATEWAY_ID'], 'edge-3');
    assert.equal(environment['TG_CACHE_BYTES'], String(2 ** 28));
    assert.equal(environment['TG_EXCHANGES_MAX'], '17');
    assert.equal(environment['TG_EDGE_CONNECTIONS_MAX'], '250');
    assert.equal(environment['TG_EDGE_REQUESTS_MAX'], '3');
    assert.equal(environment['TG_WORKERS'], '1');
    assert.equal(environmentOfWorker({ ...config, workers: 256, exchangesMax: 2 }, 'edge', 1)['TG_EXCHANGES_MAX'], '2');
  });
});

describe('a gateway with several workers', () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const environment = {
    PATH: process.env['PATH'],
    TG_WORKERS: '3',
    TG_METRICS_PORT: '0',
    TG_EXT_AUTHZ_PORT: '0',
    TG_CLIENT_KEY: JSON.stringify({ ...privateKey.export({ format: 'jwk' }), alg: 'ES256', kid: 'gateway-1' }),
    TG_FLEET_SECRET: 'fleet-secret-of-at-least-32-bytes',
  };

  async function outputOf(more: NodeJS.ProcessEnv) {
    const child = spawn(process.execPath, [fileURLToPath(new URL('../main.ts', import.meta.url))], {
      env: { ...environment, ...more },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const [[code], output, errors] = await Promise.all([once(child, 'exit'), text(child.stdout), text(child.stderr)]);
    return { code: code as number | null, output: output + errors };
  }

  it('ends with 1 and says once what is wrong with its configuration, whoever finds it', async () => {
    const byKeeper = await outputOf({ TG_WORKERS: 'many' });
    assert.equal(byKeeper.code, 1);
    assert.equal(
      byKeeper.output,
      'gateway: the configuration is not valid: TG_WORKERS must be auto, or an integer from 1 to 256\n',
    );
    const byWorker = await outputOf({ TG_RULES_FILE: '/nowhere/rules.yaml' });
    assert.equal(byWorker.code, 1);
    assert.equal(byWorker.output.match(/TG_RULES_FILE cannot be read/g)?.length, 1, byWorker.output);
  });

  it('ends with 1 when its port is taken', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    assert.ok(typeof address === 'object' && address !== null);
    const { code, output } = await outputOf({ TG_EXT_AUTHZ_PORT: String(address.port) });
    server.close();
    assert.equal(code, 1, output);
    assert.equal(output.match(/EADDRINUSE.*start failed/g)?.length, 1, output);
  });
});
