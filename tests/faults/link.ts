/** One connection path between two processes, for faults: cut, black hole, delay, loss. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export type LinkState = 'through' | 'cut' | 'black-hole' | 'slow' | 'lossy';

const delayMs = 200;
/** Of the chunks: what is lost comes again after a retransmission timeout of TCP. */
export const lossShare = 0.01;

export interface Target {
  readonly host: string;
  readonly port: number;
}

export class Link implements AsyncDisposable {
  readonly #server = createServer((near) => this.#accept(near));
  readonly #sockets = new Set<Socket>();
  #target: Target;
  #state: LinkState = 'through';

  constructor(target: Target) {
    this.#target = target;
  }

  async listen(): Promise<number> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return (this.#server.address() as AddressInfo).port;
  }

  /** From now on, for connections there are as well as for new ones. Those that were silent, and so miss something, end. */
  set(state: LinkState): void {
    const wasSilent = this.#state === 'black-hole';
    this.#state = state;
    if (state === 'cut' || (wasSilent && state !== 'black-hole')) this.#reset();
  }

  /** Leads somewhere else from now on; the connections there are end. */
  redirect(target: Target): void {
    this.#target = target;
    this.#reset();
  }

  #reset(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
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
      const late: { readonly chunk: Buffer; readonly dueAt: number }[] = [];
      const passOn = (): void => {
        const now = performance.now();
        for (let next = late[0]; next !== undefined && !to.destroyed; next = late[0]) {
          if (next.dueAt > now) return void setTimeout(passOn, next.dueAt - now);
          to.write(next.chunk);
          late.shift();
        }
      };
      from.on('data', (chunk) => {
        if (this.#state === 'black-hole') return;
        const isLate = this.#state === 'slow' || (this.#state === 'lossy' && Math.random() < lossShare);
        const last = late.at(-1);
        if (!isLate && last === undefined) return void to.write(chunk);
        // In order, like TCP: what follows a late chunk waits in line behind it.
        late.push({ chunk, dueAt: Math.max(last?.dueAt ?? 0, performance.now() + (isLate ? delayMs : 0)) });
        if (last === undefined) setTimeout(passOn, delayMs);
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
