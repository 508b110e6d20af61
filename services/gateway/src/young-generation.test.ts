import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';

/**
 * Reads from a socket, and makes a small object for every 128 octets. Says how often all of its heap was collected. Its young
 * objects may be as many from the start as they may become.
 */
const script = `
  import { connect, createServer } from 'node:net';
  import { constants, PerformanceObserver } from 'node:perf_hooks';
  import { collectYoungObjectsEarly } from './young-generation.ts';

  if (process.argv[1] === 'early') collectYoungObjectsEarly();
  let count = 0;
  new PerformanceObserver((list) => {
    for (const { detail } of list.getEntries()) if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) count += 1;
  }).observe({ entryTypes: ['gc'] });
  const latest = new Array(1000);
  let left = 2e9;
  const server = createServer((socket) => socket.on('data', ({ length }) => {
    for (let at = 0; at < length / 128; at += 1) latest[at % latest.length] = { at, of: length };
    left -= length;
    if (left <= 0) setImmediate(() => {
      console.log(count);
      process.exit();
    });
  }));
  server.listen(0, '127.0.0.1', () => {
    const chunk = Buffer.alloc(65_536);
    const socket = connect(server.address().port, '127.0.0.1');
    const write = () => {
      while (socket.write(chunk));
      socket.once('drain', write);
    };
    write();
  });
`;

async function collectionsOfAll(when: 'early' | 'late'): Promise<number> {
  const args = ['--min-semi-space-size=32', '--input-type=module', '--eval', script, when];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: import.meta.dirname });
  return Number(stdout);
}

test('what is read from sockets does not have all of the heap collected again and again', async () => {
  const [early, late] = [await collectionsOfAll('early'), await collectionsOfAll('late')];
  assert.ok(early <= 3, `${early} times, though young objects are collected early`);
  assert.ok(late > 3 * early + 3, `${late} times where they are not: they need not be collected early any more`);
});
