import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import type { TestContext } from 'node:test';

/** A network between a client and a server, for tests to break. */
export interface TcpProxy {
  readonly port: number;
  /** Connections made so far. */
  readonly connectionCount: number;
  /** Everything sent from now on, also on new connections, is swallowed: they stay open and silent. */
  blackHole(): void;
  /** New connections work; those that were swallowed stay silent for ever. */
  heal(): void;
  /** Resets every connection. */
  cut(): void;
}

/** Listens until the test is over. */
export async function startTcpProxy(test: TestContext, target: { host: string; port: number }): Promise<TcpProxy> {
  const pairs = new Set<readonly [Socket, Socket]>();
  let isSilent = false;
  let connectionCount = 0;
  const server = createServer((inner) => {
    connectionCount += 1;
    const outer = connect(target);
    const pair = [inner, outer] as const;
    pairs.add(pair);
    const end = (): void => {
      pairs.delete(pair);
      inner.destroy();
      outer.destroy();
    };
    for (const socket of pair) socket.once('close', end).on('error', end);
    if (isSilent) silence(pair);
    else inner.pipe(outer).pipe(inner);
  });
  function silence(pair: readonly [Socket, Socket]): void {
    for (const socket of pair) socket.unpipe().resume();
  }
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const proxy: TcpProxy = {
    port: (server.address() as AddressInfo).port,
    get connectionCount() {
      return connectionCount;
    },
    blackHole() {
      isSilent = true;
      for (const pair of pairs) silence(pair);
    },
    heal() {
      isSilent = false;
    },
    cut() {
      for (const [inner, outer] of pairs) {
        inner.resetAndDestroy();
        outer.destroy();
      }
    },
  };
  test.after(() => {
    server.close();
    proxy.cut();
  });
  return proxy;
}
