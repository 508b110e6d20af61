import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { Kafka, logLevel } from 'kafkajs';
import postgres from 'postgres';
import { envoyAnswers, kafkaAnswers, keycloakAnswers, postgresAnswers, redisAnswers } from './answers.ts';
import { openParts } from './index.ts';
import type { EnvoyAddress, PartName, PartsProvider } from './port.ts';

const choice = process.env['TG_PARTS'];

for (const name of ['containers', 'native'] as const) {
  const skip = choice !== undefined && choice !== name ? `TG_PARTS is ${choice}` : false;
  describe(`parts: ${name}`, { skip, concurrency: true }, () => {
    onPart('postgres', name, async (provider) => {
      await using part = await provider.postgres();
      const url = await part.createDatabase();
      const sql = postgres(url, { max: 1, onnotice: () => {} });
      await sql`create table note as select 'kept' as text`;

      await part.pause();
      let answered = false;
      const question = sql`select text from note`.then((rows) => {
        answered = true;
        return rows;
      });
      await assert.rejects(postgresAnswers(url));
      assert.equal(answered, false, 'an open connection is served by nobody either');
      await part.resume();
      assert.equal((await question)[0]?.['text'], 'kept');

      await part.kill();
      await assert.rejects(postgresAnswers(url));
      await part.restart();
      assert.equal((await sql`select text from note`)[0]?.['text'], 'kept');

      await part.shutDown();
      await assert.rejects(postgresAnswers(url));
      await part.recover();
      assert.equal((await sql`select text from note`)[0]?.['text'], 'kept');
      await sql.end();

      const other = await part.createDatabase();
      assert.notEqual(other, url);
      await part.stop();
      await assert.rejects(postgresAnswers(url));
    });

    onPart(
      'postgres',
      name,
      async (provider) => {
        await using primary = await provider.postgres();
        const url = await primary.createDatabase();
        const sql = postgres(url, { max: 1, onnotice: () => {} });
        await sql`create table note (text text)`;
        const standby = await primary.standby({ synchronous: true });
        await sql`insert into note values ('kept')`;

        await standby.pause();
        let isCommitted = false;
        const waiting = sql`insert into note values ('waits')`.then(() => {
          isCommitted = true;
        });
        await assert.rejects(postgresAnswers(standby.urlOf(url)));
        assert.equal(isCommitted, false, 'a commit waits for a synchronous standby');
        await standby.resume();
        await waiting;

        await standby.kill();
        await standby.restart();
        await sql`insert into note values ('follows again')`;
        await standby.detach();
        await sql`set synchronous_commit to local`;
        await sql`insert into note values ('lost')`;
        await primary.kill();
        await standby.promote();
        const promoted = postgres(standby.urlOf(url), { max: 1 });
        await promoted`insert into note values ('after')`;
        const notes = await promoted`select text from note`;
        assert.deepEqual(
          notes.map((row) => row['text']),
          ['kept', 'waits', 'follows again', 'after'],
        );
        await Promise.all([promoted.end(), sql.end({ timeout: 0 })]);
      },
      'has a standby that follows, holds up commits where it has to, and can be promoted without the last of them',
    );

    onPart('kafka', name, async (provider) => {
      await using part = await provider.kafka();
      const kafka = new Kafka({ brokers: [...part.brokers], logLevel: logLevel.NOTHING });
      const admin = kafka.admin();
      await admin.connect();
      await admin.createTopics({ topics: [{ topic: 'notes', numPartitions: 1 }], waitForLeaders: true });
      await admin.disconnect();
      const producer = kafka.producer();
      await producer.connect();
      await producer.send({ topic: 'notes', messages: [{ value: 'kept' }] });
      await producer.disconnect();

      await part.pause();
      await assert.rejects(kafkaAnswers(part.brokers));
      await part.resume();
      // It may have been fenced meanwhile.
      await part.recover();

      await part.kill();
      await assert.rejects(kafkaAnswers(part.brokers));
      await part.restart();
      await part.shutDown();
      await assert.rejects(kafkaAnswers(part.brokers));
      await part.recover();
      const consumer = kafka.consumer({ groupId: 'readers' });
      await consumer.connect();
      await consumer.subscribe({ topic: 'notes', fromBeginning: true });
      const value = await new Promise((resolve, reject) => {
        const eachMessage = async (payload: { message: { value: Buffer | null } }): Promise<void> =>
          resolve(payload.message.value?.toString());
        consumer.run({ eachMessage }).catch(reject);
      });
      await consumer.disconnect();
      assert.equal(value, 'kept');

      await part.stop();
      await assert.rejects(kafkaAnswers(part.brokers));
    });

    onPart(
      'postgres',
      name,
      async (provider) => {
        if (process.getuid?.() !== 0) return void (await assert.rejects(provider.postgres({ ownDisk: true }), /mount/));
        await using part = await provider.postgres({ ownDisk: true });
        const sql = postgres(await part.createDatabase(), { max: 1, onnotice: () => {} });
        await sql`create table note as select 'kept' as text`;
        await part.disk?.fill();
        await assert.rejects(async () => {
          for (;;) await sql`insert into note values (repeat('x', 100000))`;
        });
        await part.disk?.free();
        await part.recover();
        assert.equal((await sql`select text from note limit 1`)[0]?.['text'], 'kept');
        await sql.end();
      },
      'refuses to write when its disk is full, and has its data when there is room again',
    );

    onPart(
      'kafka',
      name,
      async (provider) => {
        if (process.getuid?.() !== 0) return void (await assert.rejects(provider.kafka({ ownDisk: true }), /mount/));
        await using part = await provider.kafka({ ownDisk: true });
        const kafka = new Kafka({ brokers: [...part.brokers], logLevel: logLevel.NOTHING });
        const admin = kafka.admin();
        await admin.connect();
        await admin.createTopics({ topics: [{ topic: 'notes', numPartitions: 1 }], waitForLeaders: true });
        await admin.disconnect();
        await part.disk?.fill();
        await assert.rejects(kafkaAnswers(part.brokers));
        await part.disk?.free();
        await part.recover();
        const producer = kafka.producer();
        await producer.connect();
        await producer.send({ topic: 'notes', messages: [{ value: 'again' }] });
        await producer.disconnect();
      },
      'ends when its disk is full, and takes records when there is room again',
    );

    onPart('redis', name, async (provider) => {
      await using part = await provider.redis();
      const { hostname, port } = new URL(part.url);
      const answers = (): Promise<void> => redisAnswers(hostname, Number(port));
      const redis = new Redis(part.url, { retryStrategy: () => 50 });
      redis.on('error', () => {});
      await redis.set('note', 'kept');
      assert.deepEqual(await redis.config('GET', 'notify-keyspace-events'), ['notify-keyspace-events', 'gxE']);

      await part.pause();
      await assert.rejects(answers());
      await part.resume();
      await answers();

      await part.kill();
      await assert.rejects(answers());
      await part.restart();
      assert.equal(await redis.get('note'), 'kept');

      await part.shutDown();
      await assert.rejects(answers());
      await part.recover();
      assert.equal(await redis.get('note'), 'kept');
      redis.disconnect();

      await part.stop();
      await assert.rejects(answers());
    });

    onPart('envoy', name, async (provider) => {
      await using part = await provider.envoy(directAnswer);
      const answer = async (): Promise<string> => (await fetch(part.url)).text();
      assert.equal(await answer(), 'from envoy');

      await part.pause();
      await assert.rejects(envoyAnswers(part.adminUrl));
      await part.resume();
      await envoyAnswers(part.adminUrl);

      await part.kill();
      await assert.rejects(answer());
      await part.restart();
      assert.equal(await answer(), 'from envoy');

      await part.shutDown();
      await assert.rejects(answer());
      await part.recover();
      assert.equal(await answer(), 'from envoy');

      await part.stop();
      await assert.rejects(answer());
    });

    onPart(
      'keycloak',
      name,
      async (provider) => {
        await using part = await provider.keycloak();
        const answer = async (): Promise<number> => (await fetch(`${part.url}/realms/kept`)).status;
        assert.equal(await answer(), 404);
        await part.createRealm({ realm: 'kept', enabled: true });
        await part.shutDown();
        await assert.rejects(keycloakAnswers(part.url));
        await part.restart();
        assert.equal(await answer(), 200);
      },
      'has the realms that were made, also after a stop',
    );

    onPart(
      'redis',
      name,
      async () => {
        const program = `
        const { openParts } = await import(${JSON.stringify(new URL('index.ts', import.meta.url).href)});
        const parts = await openParts(['redis'], '${name}');
        const part = await parts.redis();
        await part.pause();
        console.log('url ' + part.url);
        process.kill(process.pid, 'SIGKILL');`;
        const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        let output = '';
        child.stdout.setEncoding('utf8').on('data', (text: string) => {
          output += text;
        });
        await once(child, 'close');
        const { hostname, port } = new URL(/^url (.*)$/m.exec(output)?.[1] ?? '');
        await untilRefused(hostname, Number(port));
      },
      'a part, even a paused one, does not outlive a test process that was killed',
    );
  });
}

describe('a disk of its own', () => {
  test('does not outlive a test process that was killed', async () => {
    const program = `
      const { createDisk } = await import(${JSON.stringify(new URL('disk.ts', import.meta.url).href)});
      const path = await createDisk(1).then((disk) => disk.path, ({ message }) => message);
      console.log('path ' + path);
      process.kill(process.pid, 'SIGKILL');`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    await once(child, 'close');
    const path = /^path (.*)$/m.exec(output)?.[1] ?? '';
    if (process.getuid?.() !== 0) assert.match(path, /right to mount/);
    while (existsSync(path)) await delay(20);
  });
});

describe('a suite whose part cannot be had', () => {
  const run = async (env: NodeJS.ProcessEnv): Promise<{ code: number | null; output: string }> => {
    const program = `
      const { partsSuite } = await import(${JSON.stringify(new URL('index.ts', import.meta.url).href)});
      await partsSuite('needs redis', ['redis'], () => { throw new Error('defined without its part'); });`;
    const nowhere = { PATH: process.env['PATH'], TG_PARTS: 'containers', DOCKER_HOST: 'tcp://127.0.0.1:1' };
    const child = spawn(process.execPath, ['--test-reporter=tap', '--input-type=module', '-e', program], {
      env: { ...nowhere, ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    const [code] = await once(child, 'close');
    return { code, output };
  };

  test('is skipped by name, saying why', async () => {
    const { code, output } = await run({});
    assert.equal(code, 0);
    assert.match(output, /^ok 1 - needs redis # SKIP no real redis: containers: redis: /m);
  });

  test('fails when CI is set', async () => {
    const { code, output } = await run({ CI: 'true' });
    assert.equal(code, 1);
    assert.match(output, /^not ok 1 - needs redis/m);
  });
});

/** Skipped, by name, where this provider has no such part: that some provider has it is what `partsSuite` demands. */
function onPart(
  part: PartName,
  provider: PartsProvider['name'],
  run: (provider: PartsProvider) => Promise<void>,
  guarantee = 'answers, pauses, and comes back after a kill or a stop on its address and with its data',
): void {
  test(`${part}: ${guarantee}`, async (t) => {
    let parts: PartsProvider;
    try {
      parts = await openParts([part], provider);
    } catch (error) {
      t.skip(error instanceof Error ? error.message : String(error));
      return;
    }
    await run(parts);
  });
}

async function untilRefused(host: string, port: number): Promise<void> {
  for (;;) {
    const refused = await redisAnswers(host, port).then(
      () => false,
      (error: unknown) => error instanceof Error && 'code' in error && error.code === 'ECONNREFUSED',
    );
    if (refused) return;
    await delay(20);
  }
}

function directAnswer({ listenerPort, adminPort }: EnvoyAddress): string {
  const listen = (port: number): string => `{ socket_address: { address: 0.0.0.0, port_value: ${port} } }`;
  return `
admin: { address: ${listen(adminPort)} }
static_resources:
  listeners:
    - address: ${listen(listenerPort)}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: test
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: { prefix: "/" }
                          direct_response: { status: 200, body: { inline_string: "from envoy" } }
`;
}
