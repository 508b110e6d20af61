/** One connection path between two processes, for faults: cut, black hole, delay, loss. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export type LinkState = 'through' | 'cut' | 'black-hole' | 'slow' | 'lossy';

const delayMs = 200;
/** Of the chunks: what is lost comes again after a retransmission timeout of TCP. */
export const lossShare = 0.01;

export class Link implements AsyncDisposable {
  readonly #server = createServer((near) => this.#accept(near));
  readonly #target: { readonly host: string; readonly port: number };
  readonly #sockets = new Set<Socket>();
  #state: LinkState = 'through';

  constructor(target: { readonly host: string; readonly port: number }) {
    this.#target = target;
  }

  async listen(): Promise<number> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return (this.#server.address() as AddressInfo).port;
  }

  /** From now on, for connections there are as well as for new ones. Healing ends those that were silent. */
  set(state: LinkState): void {
    const wasSilent = this.#state === 'black-hole';
    this.#state = state;
    if (state === 'cut' || (wasSilent && state === 'through')) {
      for (const socket of this.#sockets) socket.resetAndDestroy();
    }
  }

  #accept(near: Socket): void {
    if (this.#state === 'cut') return void near.resetAndDestroy();
    const far = connect(this.#target);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(from);
      from.setNoDelay(true);
      from.on('error', () => {});
      from.once('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      let freeAt = 0;
      from.on('data', (chunk) => {
        if (this.#state === 'black-hole') return;
        const isLate = this.#state === 'slow' || (this.#state === 'lossy' && Math.random() < lossShare);
        const now = performance.now();
        // In order: what follows a late chunk waits for it.
        freeAt = Math.max(freeAt, isLate ? now + delayMs : now);
        if (freeAt <= now) to.write(chunk);
        else setTimeout(() => to.destroyed || to.write(chunk), freeAt - now);
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
