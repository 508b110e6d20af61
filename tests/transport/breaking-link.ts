/** One connection path between two processes that ends, resets and holds back connections. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import type { Target } from '../faults/link.ts';
import type { Random } from '../simulation/random.ts';

const everyHarm = ['cut', 'torn', 'reset', 'paused'] as const;
type Harm = (typeof everyHarm)[number];
type Pair = readonly [near: Socket, far: Socket];

export class BreakingLink implements AsyncDisposable {
  readonly #random: Random;
  readonly #pairs = new Set<Pair>();
  /** One thing at a time: held back, or ending by what was done to them. What is lost is never followed by more. */
  readonly #broken = new WeakSet<Pair>();
  readonly #server = createServer((near) => this.#accept(near));
  readonly #target: Target;
  readonly #possible: readonly Harm[];
  readonly #counts: Record<Harm, number> = { cut: 0, torn: 0, reset: 0, paused: 0 };

  readonly #harms: Readonly<Record<Harm, (pair: Pair, which: readonly Socket[]) => void>> = {
    /** FIN, and nothing more of what was on its way. */
    cut: ([near, far], which) => {
      near.unpipe(far).resume();
      far.unpipe(near).resume();
      for (const socket of which) socket.end();
    },
    /** FIN in the midst of what is passed on next. */
    torn: ([near, far], [from]) => {
      const to = from === near ? far : near;
      from?.unpipe(to).once('data', (chunk: Buffer) => to.end(chunk.subarray(0, this.#random.below(chunk.length))));
      from?.resume();
    },
    reset: (_pair, which) => {
      for (const socket of which) socket.resetAndDestroy();
    },
    paused: (pair, which) => {
      const [near, far] = pair;
      const forMs = this.#random.between(100, 700);
      const held = which.map((from) => [from, from === near ? far : near] as const);
      for (const [from, to] of held) from.unpipe(to);
      setTimeout(() => {
        for (const [from, to] of held) from.pipe(to);
        this.#broken.delete(pair);
      }, forMs).unref();
    },
  };

  constructor(target: Target, random: Random, harms: readonly Harm[] = everyHarm) {
    this.#target = target;
    this.#random = random;
    this.#possible = harms;
  }

  async listen(): Promise<number> {
    this.#server.listen(0, '0.0.0.0');
    await once(this.#server, 'listening');
    return (this.#server.address() as AddressInfo).port;
  }

  /** How many connections something was done to, by what it was. */
  get broken(): Readonly<Record<Harm, number>> {
    return this.#counts;
  }

  /** Does something to one of the connections there are. */
  break(): void {
    const whole = [...this.#pairs].filter((pair) => !this.#broken.has(pair));
    if (whole.length === 0) return;
    const pair = this.#random.pick(whole);
    const harm = this.#random.pick(this.#possible);
    this.#broken.add(pair);
    this.#counts[harm] += 1;
    this.#harms[harm](pair, this.#random.pick([pair, [pair[0]], [pair[1]]]));
  }

  /** Ends every connection there is; those that come later are served. */
  endAll(): void {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
  }

  #accept(near: Socket): void {
    const far = connect(this.#target);
    const pair: Pair = [near, far];
    this.#pairs.add(pair);
    near.pipe(far).pipe(near);
    for (const socket of pair) {
      socket.setNoDelay(true);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        this.#pairs.delete(pair);
        for (const each of pair) each.destroy();
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.endAll();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
