/** What a process of Node allocates on its heap, by the sampling profiler of V8, asked by its inspector. */
import { once } from 'node:events';

/** One sample for so many octets, on average. */
const samplingInterval = 16 * 1024;

interface Node {
  readonly selfSize: number;
  readonly children: readonly Node[];
}

export class AllocationProfiler {
  readonly #socket: WebSocket;
  #next = 1;

  /** @param port Of its inspector (`--inspect=127.0.0.1:PORT`). */
  static async open(port: number): Promise<AllocationProfiler> {
    const [target] = (await (await fetch(`http://127.0.0.1:${port}/json`)).json()) as [
      { webSocketDebuggerUrl: string },
    ];
    const socket = new WebSocket(target.webSocketDebuggerUrl);
    await once(socket, 'open');
    return new AllocationProfiler(socket);
  }

  private constructor(socket: WebSocket) {
    this.#socket = socket;
  }

  /** Octets for each of so many calls, whether they are collected meanwhile or not; `run` resolves with how many there were. */
  async octetsOfEach(run: () => Promise<number>): Promise<number> {
    const collected = { includeObjectsCollectedByMajorGC: true, includeObjectsCollectedByMinorGC: true };
    await this.#call('HeapProfiler.startSampling', { samplingInterval, ...collected });
    const count = await run();
    const { profile } = (await this.#call('HeapProfiler.stopSampling', {})) as { profile: { head: Node } };
    return octetsOf(profile.head) / count;
  }

  close(): void {
    this.#socket.close();
  }

  async #call(method: string, params: object): Promise<unknown> {
    const id = this.#next;
    this.#next += 1;
    this.#socket.send(JSON.stringify({ id, method, params }));
    for (;;) {
      const [{ data }] = (await once(this.#socket, 'message')) as [{ data: string }];
      const message = JSON.parse(data) as { id?: number; result?: unknown };
      if (message.id === id) return message.result;
    }
  }
}

function octetsOf({ selfSize, children }: Node): number {
  return children.reduce((sum, child) => sum + octetsOf(child), selfSize);
}
