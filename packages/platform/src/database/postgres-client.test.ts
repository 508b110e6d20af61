import assert from 'node:assert/strict';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import postgres from 'postgres';
import type { Clock } from '../clock/port.ts';
import { systemClock } from '../clock/system.ts';
import { toServiceError } from '../errors.ts';
import { createGuardedClient } from './postgres-client.ts';

describe('a pool of connections to Postgres', () => {
  it('is given up when nothing was answered in time, by whichever clock that time was over', async (test) => {
    const sockets = new Set<Socket>();
    const silent = createServer((socket) => sockets.add(socket.on('error', () => {}))).listen(0, '127.0.0.1');
    test.after(() => {
      for (const socket of sockets) socket.destroy();
      silent.close();
    });
    await new Promise((resolve) => silent.once('listening', resolve));
    const { port } = silent.address() as AddressInfo;
    // The event loop has its own time, which may be behind that of the machine: a timer set by it ends before.
    const early: Clock = { ...systemClock, setTimer: (callback, ms) => systemClock.setTimer(callback, ms - 5) };
    let opened = 0;
    const open = () => {
      opened += 1;
      return postgres({ host: '127.0.0.1', port, max: 1, connect_timeout: 60 });
    };
    const client = createGuardedClient(open, early, 100);
    test.after(() => client.end(0));
    for (const count of [2, 3]) {
      await assert.rejects(
        async () => client.sql.unsafe('select 1', []),
        (error) => /no answer within/.test(String(toServiceError(error).detail)),
      );
      assert.equal(opened, count);
    }
  });
});
