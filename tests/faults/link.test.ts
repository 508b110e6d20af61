import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { describe, it } from 'node:test';
import { Link, type LinkState } from './link.ts';

/** The numbers sent one by one for a while, and what arrived, until the last of them did. */
async function passed(state: LinkState, forMs: number): Promise<{ sent: number[]; arrived: number[] }> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  await using link = new Link({ host: '127.0.0.1', port: (server.address() as AddressInfo).port });
  const client = connect(await link.listen(), '127.0.0.1').setNoDelay(true);
  const [[far]] = await Promise.all([once(server, 'connection'), once(client, 'connect')]);
  link.set(state);
  const sent: number[] = [];
  const end = performance.now() + forMs;
  while (performance.now() < end) {
    client.write(`${sent.length} `);
    sent.push(sent.length);
    // Each a chunk of its own: the loop turns.
    await new Promise(setImmediate);
  }
  client.write('end ');
  let text = '';
  for await (const chunk of far) {
    text += chunk;
    if (text.split(' ').includes('end')) break;
  }
  server.close();
  const arrived = text.split(' ').filter((word) => word !== '' && word !== 'end');
  return { sent, arrived: arrived.map(Number) };
}

describe('a path that is broken on purpose', () => {
  for (const state of ['through', 'slow', 'lossy'] as const) {
    it(`hands on everything in the order it came, as TCP does: ${state}`, async () => {
      const { sent, arrived } = await passed(state, 500);
      const firstLost = sent.findIndex((number, place) => arrived[place] !== number);
      assert.equal(firstLost, -1, `of ${sent.length} the first that is not where it was sent`);
      assert.equal(arrived.length, sent.length);
    });
  }

  it('leads to the new place after it was redirected, and ends what led to the old one', async () => {
    const old = createServer((socket) => socket.on('error', () => {}));
    const next = createServer((socket) => socket.end('new'));
    for (const server of [old, next]) await once(server.listen(0, '127.0.0.1'), 'listening');
    const target = (server: typeof old) => ({ host: '127.0.0.1', port: (server.address() as AddressInfo).port });
    await using link = new Link(target(old));
    const port = await link.listen();
    const before = connect(port, '127.0.0.1').on('error', () => {});
    await Promise.all([once(old, 'connection'), once(before, 'connect')]);
    link.redirect(target(next));
    await new Promise((resolve) => before.once('close', resolve));
    let text = '';
    for await (const chunk of connect(port, '127.0.0.1')) text += chunk;
    assert.equal(text, 'new');
    old.close();
    next.close();
  });
});
