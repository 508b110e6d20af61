import assert from 'node:assert/strict';
import { it } from 'node:test';
import { createTestClock } from '../clock/test.ts';
import { createTestIdentity } from '../identity-client/test.ts';
import { createSilentTelemetry } from '../telemetry.ts';
import { listening } from './conformance.ts';
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
