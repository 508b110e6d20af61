import assert from 'node:assert/strict';
import { it } from 'node:test';
import { type Change, changeFromRow, toChangeEvent } from '@token-gateway/revocation';
import { changesTopic, heartbeatsTopic } from '@token-gateway/schemas';
import { systemClock } from '../clock/system.ts';
import { ServiceError } from '../errors.ts';
import { createTestIdentity, messageOf } from '../identity-client/test.ts';
import { createSilentTelemetry } from '../telemetry.ts';
import { eventLogConformance, reading } from './conformance.ts';
import { createWatchEventLog } from './watch.ts';

const { logger } = createSilentTelemetry();
/** Members in the order they have once the change was a row. */
const eventOf = (change: Change): string =>
  JSON.stringify(toChangeEvent(changeFromRow({ ...messageOf(change), chain: change.chain })));

function openWatch() {
  const identity = createTestIdentity();
  const log = createWatchEventLog(identity.client, { logger, clock: systemClock });
  return { identity, log };
}

eventLogConformance("identity's watch", {
  appends: false,
  async open() {
    const { identity, log } = openWatch();
    return {
      log,
      topic: changesTopic,
      append: async (count) => Array.from({ length: count }, () => eventOf(identity.commit(['user:1']))),
    };
  },
});

it('a log over the watch loses and doubles nothing when identity goes away and comes back', async (test) => {
  const { identity, log } = openWatch();
  test.after(() => log.close());
  const reader = await reading(log, { topic: changesTopic, from: 'newest' });
  const changes = [identity.commit(['user:1'])];
  await reader.until(1);
  identity.failure = new ServiceError('identity_unavailable');
  identity.breakWatches();
  changes.push(identity.commit(['user:2']), identity.commit(['user:3']));
  identity.failure = null;
  changes.push(identity.commit(['user:4']));
  await reader.until(4);
  assert.deepEqual(reader.values, changes.map(eventOf));
});

it('a log over the watch begins again at the oldest change when its history was replaced by a shorter one', async (test) => {
  const { identity, log } = openWatch();
  test.after(() => log.close());
  for (let index = 0; index < 5; index += 1) identity.commit(['user:1']);
  const reader = await reading(log, { topic: changesTopic, from: 'oldest' });
  await reader.until(5);
  identity.breakWatches();
  identity.log.changes = identity.log.changes.slice(0, 2);
  identity.log.epoch = 2;
  identity.commit(['user:2']);
  await reader.until(8);
  assert.deepEqual(reader.values.slice(5), identity.log.changes.map(eventOf));
});

it('a log over the watch begins again at the oldest change when its history was replaced by a longer one', async (test) => {
  const { identity, log } = openWatch();
  test.after(() => log.close());
  for (let index = 0; index < 5; index += 1) identity.commit(['user:1']);
  const reader = await reading(log, { topic: changesTopic, from: 'oldest' });
  await reader.until(5);
  identity.breakWatches();
  identity.log.changes = identity.log.changes.slice(0, 2);
  identity.log.epoch = 2;
  for (let index = 0; index < 7; index += 1) identity.commit(['user:2']);
  await reader.until(14);
  assert.deepEqual(reader.values.slice(-9), identity.log.changes.map(eventOf));
});

it('a log over the watch has no other topic and takes no records', async (test) => {
  const { identity, log } = openWatch();
  test.after(() => log.close());
  const reader = await reading(log, { topic: heartbeatsTopic, from: 'oldest' });
  identity.commit(['user:1']);
  await assert.rejects(log.append(changesTopic, ['{}']));
  await reader.consumer.stop();
  assert.deepEqual(reader.values, []);
});
