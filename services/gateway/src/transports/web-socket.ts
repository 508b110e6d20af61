import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { HeaderPairs } from '../rules/rules.ts';
import type { Flow } from './flow.ts';

interface Ends {
  /** Unsent; its connection is the client's. */
  readonly response: ServerResponse;
  /** What the client sent behind its request: nobody had agreed to read it as the new protocol. */
  readonly early: Buffer;
  readonly upstream: Socket;
  /** What the upstream sent behind its 101. */
  readonly late: Buffer;
}

/** After the upstream's 101 (RFC 6455 section 4.2.2): passes it on, and from then on bytes both ways, each to its own end. */
export function openTunnel(
  { response, early, upstream, late }: Ends,
  flow: Flow,
  answer: HeaderPairs,
  idleMs: number,
): void {
  const client = response.socket;
  upstream.on('error', () => undefined);
  if (client === null || client.destroyed) {
    upstream.destroy();
    return;
  }
  client.on('close', (isBroken) => (isBroken ? upstream.destroy() : upstream.destroySoon()));
  upstream.on('close', (isBroken) => (isBroken ? client.destroy() : client.destroySoon()));
  upstream.setTimeout(0);
  client.setTimeout(idleMs, () => client.destroy());
  flow.pass(() => {
    const fields = [...answer, ['connection', 'Upgrade'], ['upgrade', 'websocket']];
    const head = fields.map(([name, value]) => `${name}: ${value}\r\n`).join('');
    response.detachSocket(client);
    client.write(`HTTP/1.1 101 Switching Protocols\r\n${head}\r\n`, 'latin1');
    if (early.length > 0) client.unshift(early);
    if (late.length > 0) upstream.unshift(late);
  });
  flow.join(client, upstream);
  flow.join(upstream, client);
}
