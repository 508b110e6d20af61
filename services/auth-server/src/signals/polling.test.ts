/** Security events that a transmitter is asked for (RFC 8936), from it to the change in the log. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, suite, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { Secret } from '@token-gateway/platform';
import { type OAuthWorld, startOAuthWorld } from '../oauth.testing.ts';

interface Poll {
  readonly ack: string[];
  readonly setErrs: Record<string, { err: string }>;
  readonly headers: IncomingHttpHeaders;
}

/** Keeps what it has until it is acknowledged, and answers at once. */
async function startTransmitter() {
  const sets = new Map<string, string>();
  const polls: Poll[] = [];
  const state = { isDown: false };
  const server = createServer((request, response) => {
    let text = '';
    request.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    request.on('end', () => {
      if (state.isDown) return response.writeHead(503).end();
      const { ack, setErrs } = JSON.parse(text) as Poll;
      polls.push({ ack, setErrs, headers: request.headers });
      for (const id of [...ack, ...Object.keys(setErrs)]) sets.delete(id);
      response.writeHead(200, { 'content-type': 'application/json' });
      return response.end(JSON.stringify({ sets: Object.fromEntries(sets), moreAvailable: false }));
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/poll`,
    sets,
    polls,
    state,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

let transmitter: Awaited<ReturnType<typeof startTransmitter>>;
let world: OAuthWorld;
before(async () => {
  transmitter = await startTransmitter();
  const signalPolls = [{ endpoint: transmitter.url, bearerToken: new Secret('our-token') }];
  world = await startOAuthWorld({ gateway: {} }, { signalPolls });
});
after(async () => {
  await world[Symbol.asyncDispose]();
  await transmitter[Symbol.asyncDispose]();
});

/** Lets time pass, by the test's clock, until it is so. */
async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + 10_000;
  while (!(await isSo())) {
    assert.ok(performance.now() < deadlineMs, `not within 10 s: ${what}`);
    await world.clock.advance(50);
    await setImmediate();
  }
}
const isEnded = async (token: string) => (await world.exchange('gateway', token)).body['code'] === 'session_revoked';

const event = 'https://schemas.openid.net/secevent/caep/event-type/session-revoked';
function eventToken(audience: string, jti: string, claims: object = {}): Promise<string> {
  const sub_id = { format: 'iss_sub', iss: world.provider.issuer, sub: 'somebody' };
  const defaults = { aud: audience, jti, events: { [event]: {} }, sub_id, sub: undefined, exp: undefined };
  return world.provider.sign({ ...defaults, ...claims }, { typ: 'secevent+jwt' });
}

suite('polling for security events', () => {
  test('an event is acknowledged once it is a change in the log, by a receiver that says who it is', async () => {
    const { audience } = await world.createProvider({ securityEvents: {} });
    const token = await world.provider.sign({ aud: audience });
    transmitter.sets.set('one', await eventToken(audience, 'one'));
    await until('acknowledged', () => transmitter.polls.some(({ ack }) => ack.includes('one')));
    assert.ok(await isEnded(token));
    assert.equal(transmitter.polls.at(-1)?.headers.authorization, 'Bearer our-token');
    assert.equal(transmitter.sets.size, 0);
  });

  test('an event that cannot be decided is not acknowledged, and comes again', async () => {
    const { audience } = await world.createProvider({ securityEvents: {} });
    // From before the event, and good for as long as the test's clock may take.
    const access = await world.provider.sign({ aud: audience, exp: world.clock.now().wallMs / 1000 + 86_400 });
    const securityEvent = await eventToken(audience, 'two');
    world.provider.isDown = true;
    const polls = transmitter.polls.length;
    transmitter.sets.set('two', securityEvent);
    await until('asked again and again', () => transmitter.polls.length >= polls + 3);
    const told = transmitter.polls.slice(polls).flatMap(({ ack, setErrs }) => [...ack, ...Object.keys(setErrs)]);
    assert.deepEqual(told, []);
    world.provider.isDown = false;
    await until('acknowledged', () => transmitter.polls.some(({ ack }) => ack.includes('two')));
    assert.ok(await isEnded(access));
  });

  test('an event that is refused is told to be, and why, and holds up no other', async () => {
    const { audience } = await world.createProvider({ securityEvents: {} });
    transmitter.sets.set('forged', `${(await eventToken(audience, 'forged')).slice(0, -4)}AAAA`);
    transmitter.sets.set('for-others', await eventToken('nobody', 'for-others'));
    transmitter.sets.set('good', await eventToken(audience, 'good'));
    await until('all are told', () => transmitter.sets.size === 0);
    const errors = Object.assign({}, ...transmitter.polls.map(({ setErrs }) => setErrs)) as Poll['setErrs'];
    assert.equal(errors['forged']?.err, 'invalid_key');
    assert.equal(errors['for-others']?.err, 'invalid_audience');
    assert.ok(transmitter.polls.some(({ ack }) => ack.includes('good')));
  });

  test('an event whose key is not published yet comes again until it is, and holds up no other', async () => {
    const { audience } = await world.createProvider({ securityEvents: {} });
    const access = await world.provider.sign({ aud: audience, exp: world.clock.now().wallMs / 1000 + 86_400 });
    await world.granted(world.exchange('gateway', access));
    const good = await eventToken(audience, 'known-key', { sub_id: { format: 'opaque', id: 'another' } });
    world.provider.publishedKeys = [world.provider.publicJwk()];
    await world.provider.rotate();
    const polls = transmitter.polls.length;
    transmitter.sets.set('new-key', await eventToken(audience, 'new-key'));
    await until('asked again', () => transmitter.polls.length >= polls + 5);
    transmitter.sets.set('known-key', good);
    await until('the other is heard', () => !transmitter.sets.has('known-key'));
    assert.ok(transmitter.sets.has('new-key'));
    world.provider.publishedKeys = null;
    await until('heard', () => transmitter.polls.some(({ ack }) => ack.includes('new-key')));
    const errors = transmitter.polls.slice(polls).flatMap(({ setErrs }) => Object.keys(setErrs));
    assert.deepEqual(errors, []);
  });

  test('an event whose key is never published is refused in the end, having been asked for at a pause', async () => {
    const { audience } = await world.createProvider({ securityEvents: {} });
    const token = await eventToken(audience, 'unknown-key');
    const [, payload = '', signature = ''] = token.split('.');
    const header = { alg: 'ES256', kid: 'nobody', typ: 'secevent+jwt' };
    const encoded = Buffer.from(JSON.stringify(header)).toString('base64url');
    const [polls, sinceMs] = [transmitter.polls.length, world.clock.now().wallMs];
    transmitter.sets.set('unknown-key', `${encoded}.${payload}.${signature}`);
    await until('told', () => !transmitter.sets.has('unknown-key'));
    const waitedMs = world.clock.now().wallMs - sinceMs;
    assert.ok(waitedMs >= 10_000 && waitedMs < 15_000, `${waitedMs} ms`);
    assert.ok(transmitter.polls.length - polls <= waitedMs / 250 + 3, `${transmitter.polls.length - polls} polls`);
    assert.equal(transmitter.polls.at(-1)?.setErrs['unknown-key']?.err, 'invalid_key');
  });

  test('a transmitter that was away is asked again', async () => {
    const { audience } = await world.createProvider({ securityEvents: {} });
    transmitter.state.isDown = true;
    transmitter.sets.set('late', await eventToken(audience, 'late'));
    await world.clock.advance(2000);
    transmitter.state.isDown = false;
    await until('acknowledged', () => transmitter.polls.some(({ ack }) => ack.includes('late')));
  });
});
