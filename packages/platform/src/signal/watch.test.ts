import assert from 'node:assert/strict';
import { it } from 'node:test';
import { systemClock } from '../clock/system.ts';
import { createTestClock } from '../clock/test.ts';
import { createGrpcIdentityClient } from '../identity-client/grpc.ts';
import { createGrpcIdentityServer } from '../identity-client/grpc-server.ts';
import { createTestIdentity, messageOf } from '../identity-client/test.ts';
import { createSilentTelemetry } from '../telemetry.ts';
import { createHeard, listening } from './conformance.ts';
import { createWatchSource } from './watch.ts';

const { logger } = createSilentTelemetry();

it('the watch source brings changes as they commit, and connects again when the stream breaks', async (test) => {
  const clock = createTestClock();
  const identity = createTestIdentity();
  identity.commit(['key:before']);
  const source = createWatchSource(identity.client, { logger, clock, random: () => 0 });
  const heard = await listening(test, source);
  const first = identity.commit(['key:1']);
  assert.deepEqual(heard.changes, [first]);
  identity.breakWatches();
  await heard.until(() => heard.states.length === 2);
  await clock.advance(50);
  assert.deepEqual(heard.states, ['connected', 'disconnected', 'connected']);
  const second = identity.commit(['key:2']);
  assert.deepEqual(heard.changes, [first, second]);
});

it('the watch source drops a row that is no change, and goes on', async (test) => {
  const identity = createTestIdentity();
  let tell: (payload: string) => void = () => undefined;
  const client: typeof identity.client = {
    ...identity.client,
    watch(request, onChange, signal, onOpen) {
      tell = (payload) => onChange({ ...messageOf(identity.log.append(['key:0'])), payload });
      return identity.client.watch(request, onChange, signal, onOpen);
    },
  };
  const heard = await listening(test, createWatchSource(client, { logger, clock: createTestClock() }));
  const payloads = ['', '{', 'null', '{"type":"tg.user.changed"}', '{"subjects":"all"}'];
  for (const payload of payloads) tell(payload);
  const change = identity.commit(['key:1']);
  assert.deepEqual(heard.changes, [change]);
  assert.equal(heard.malformed.length, payloads.length);
  assert.deepEqual(heard.states, ['connected']);
});

it('the watch source goes on after a listener that throws, over gRPC as well', { timeout: 20_000 }, async (test) => {
  const identity = createTestIdentity();
  const server = await createGrpcIdentityServer(identity.client, { host: '127.0.0.1', port: 0, logger });
  test.after(() => server.close());
  const clock = systemClock;
  const client = createGrpcIdentityClient({ addresses: [`127.0.0.1:${server.port}`], logger, clock });
  test.after(() => client.close());
  const heard = createHeard();
  const fail = (): never => {
    throw new Error('listener');
  };
  const unsubscribe = createWatchSource(client, { logger, clock }).subscribe({
    ...heard.listener,
    onChange(change) {
      heard.listener.onChange(change);
      fail();
    },
    onConnected() {
      heard.listener.onConnected();
      fail();
    },
  });
  test.after(unsubscribe);
  await heard.until(() => heard.states.length > 0);
  const changes = [identity.commit(['key:1']), identity.commit(['key:2'])];
  await heard.until(() => heard.changes.length === 2);
  assert.deepEqual(heard.changes, changes);
  assert.deepEqual(heard.states, ['connected']);
});
