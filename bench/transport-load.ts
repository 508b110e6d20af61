import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { clientPreface, flag, frameType, headerOctets, setting } from '../packages/grpc-unary/src/frame.ts';
import { FrameReader } from '../packages/grpc-unary/src/frame-reader.ts';
import { HpackDecoder } from '../packages/grpc-unary/src/hpack/decoder.ts';
import { frame, prefixed, settings, uint32 } from '../packages/grpc-unary/src/raw-client.testing.ts';

/** As Envoy has them on an ext_authz call. */
const fields = [
  [':method', 'POST'],
  [':path', '/envoy.service.auth.v3.Authorization/Check'],
  [':authority', 'gateways'],
  [':scheme', 'http'],
  ['te', 'trailers'],
  ['grpc-timeout', '2000m'],
  ['content-type', 'application/grpc'],
  ['x-envoy-internal', 'true'],
  ['x-forwarded-for', '10.0.0.1'],
  ['x-envoy-expected-rq-timeout-ms', '2000'],
] as const;

const windowMax = 0x7fffffff;

/** An answer that every call has to have, or whether one is right. */
export type Expected = Buffer | ((answer: Buffer) => boolean);

/** Calls on one connection, so many at once, each request in its turn; an answer that is not the expected one throws. */
export class TransportLoad {
  readonly #socket: Socket;
  readonly #expected: Expected;
  /** The one that is expected, as it comes. */
  readonly #whole: Buffer | null;
  readonly #wholeOf: (request: Buffer) => Buffer;
  /** Of requests that are asked in turn. */
  readonly #templates: Buffer[];
  readonly #template: (at: number) => Buffer;
  readonly #count: number;
  readonly #decoder = new HpackDecoder(4096);
  readonly #bodies = new Map<number, Buffer>();
  #next = 1;
  #wanted = 0;
  #done = 0;
  #asked = 0;
  #limit = Number.POSITIVE_INFINITY;
  #received = 0;
  #status = '';
  #finished = (): void => {};
  #rejected = (_error: Error): void => {};
  /** What went wrong first. */
  #error: Error | null = null;
  /** When each call began, by its stream, and how long those took that are answered, ms: where somebody wants to know. */
  #timed: { readonly begunMs: Map<number, number>; readonly tookMs: number[] } | null = null;
  /** For those who wait until all streams before one are answered: how many are not. */
  readonly #awaited = new Set<{ readonly before: number; left: number; readonly answered: () => void }>();

  /** Of requests that are made one by one, each is made when it is sent. */
  static async open(
    port: number,
    requests: readonly Buffer[] | (() => Buffer),
    expected: Expected,
  ): Promise<TransportLoad> {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    await once(socket, 'connect');
    return new TransportLoad(socket, requests, expected);
  }

  private constructor(socket: Socket, requests: readonly Buffer[] | (() => Buffer), expected: Expected) {
    this.#socket = socket;
    this.#expected = expected;
    this.#whole = typeof expected === 'function' ? null : prefixed(expected);
    // The first call puts its fields into the table of the server; the others name them by their index there.
    const first = Buffer.concat(fields.map(([name, value]) => incremental(name, value)));
    const indexed = Buffer.from(fields.map((_, index) => 0x80 | (62 + fields.length - 1 - index)));
    const headersFrame = frame(frameType.headers, flag.endHeaders, 1, indexed);
    const bodyOf = (request: Buffer) => frame(frameType.data, flag.endStream, 1, prefixed(request));
    this.#wholeOf = (request) => Buffer.concat([headersFrame, bodyOf(request)]);
    const [firstRequest] = typeof requests === 'function' ? [requests()] : requests;
    if (typeof requests === 'function') {
      this.#templates = [];
      this.#template = () => this.#wholeOf(requests());
      this.#count = Number.POSITIVE_INFINITY;
    } else {
      this.#templates = requests.map(this.#wholeOf);
      this.#template = (at) => this.#templates[at % this.#count] as Buffer;
      this.#count = this.#templates.length;
    }
    socket.write(
      Buffer.concat([
        clientPreface,
        settings([setting.initialWindowSize, 1 << 20]),
        frame(frameType.windowUpdate, 0, 0, uint32(windowMax - 65_535)),
        frame(frameType.headers, flag.endHeaders, this.#take(), first),
        bodyOf(firstRequest ?? Buffer.alloc(0)),
      ]),
    );
    this.#asked = 1;
    const reader = new FrameReader({
      frame: (type, flags, streamId, bytes, start, end) => this.#frame(type, flags, streamId, bytes, start, end),
    });
    reader.push(clientPreface);
    socket.on('data', (chunk: Buffer) => {
      reader.push(chunk);
      this.#refill();
    });
    socket.on('error', (error) => this.#failed(error));
    socket.on('close', () => {
      this.#failed(new Error('the connection ended'));
      for (const { answered } of this.#awaited) answered();
    });
  }

  /** Another request in the turn of one; resolves when all that was sent before is answered, or never will be. */
  async replace(at: number, request: Buffer): Promise<void> {
    this.#templates[at] = this.#wholeOf(request);
    if (this.#underWay === 0 || this.#socket.destroyed) return;
    await new Promise<void>((answered) => this.#awaited.add({ before: this.#next, left: this.#underWay, answered }));
  }

  /** Resolves with the count of calls that were answered, `concurrency` at a time, for so long. */
  async run(concurrency: number, ms: number): Promise<number> {
    const before = this.#done;
    const ended = this.#until(concurrency);
    setTimeout(() => {
      this.#wanted = 0;
    }, ms);
    await ended;
    return this.#done - before;
  }

  /** Calls once with each request, but for the one that the connection began with, which is the first. */
  async runOnce(concurrency: number): Promise<void> {
    this.#limit = this.#count;
    await this.#until(concurrency);
  }

  /** How long each call took, in ms, one after the other, with a pause before each. */
  async runSerially(count: number, pauseMs = 0): Promise<number[]> {
    const tookMs: number[] = [];
    await this.#until(0);
    for (let call = 0; call < count; call += 1) {
      if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
      this.#limit = this.#asked + 1;
      const begin = performance.now();
      await this.#until(1);
      tookMs.push(performance.now() - begin);
    }
    this.#limit = Number.POSITIVE_INFINITY;
    return tookMs;
  }

  /**
   * Sends so many a second, whether those before were answered or not; but never more than `streamsMax` at once, as a
   * proxy does: the others are not sent. Resolves with how many were due, and how long each answer took, in ms.
   */
  async runOpenly(perSecond: number, ms: number, streamsMax: number): Promise<{ due: number; tookMs: number[] }> {
    const tookMs: number[] = [];
    await this.#until(0);
    this.#timed = { begunMs: new Map(), tookMs };
    const begin = performance.now();
    let due = 0;
    for (let elapsedMs = 0; elapsedMs < ms; elapsedMs = performance.now() - begin) {
      const now = Math.floor((elapsedMs * perSecond) / 1000);
      this.#send(Math.min(now - due, streamsMax - this.#underWay));
      due = now;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await this.#until(0);
    this.#timed = null;
    return { due, tookMs };
  }

  get #underWay(): number {
    return this.#asked - this.#done;
  }

  #until(concurrency: number): Promise<void> {
    this.#wanted = concurrency;
    return new Promise<void>((resolve, reject) => {
      this.#finished = resolve;
      this.#rejected = reject;
      if (this.#error === null) this.#refill();
      else reject(this.#error);
    });
  }

  /** Nothing is worth to be waited for any more. */
  #failed(error: Error): void {
    this.#error ??= error;
    this.#rejected(this.#error);
    this.#socket.destroy();
  }

  close(): void {
    this.#rejected = () => undefined;
    this.#socket.destroy();
  }

  #take(): number {
    const id = this.#next;
    this.#next += 2;
    return id;
  }

  #refill(): void {
    if (this.#asked >= this.#limit) this.#wanted = 0;
    const count = Math.min(this.#wanted - this.#underWay, this.#limit - this.#asked);
    if (this.#wanted === 0 && this.#underWay === 0) this.#finished();
    this.#send(count);
  }

  #send(count: number): void {
    if (count <= 0) return;
    const templates: Buffer[] = [];
    for (let index = 0; index < count; index += 1) {
      templates.push(this.#template(this.#asked + index));
    }
    const bytes = Buffer.concat(templates);
    const second = headerOctets + fields.length;
    const nowMs = this.#timed === null ? 0 : performance.now();
    let at = 0;
    for (const template of templates) {
      const id = this.#take();
      bytes.writeUInt32BE(id, at + 5);
      bytes.writeUInt32BE(id, at + second + 5);
      this.#timed?.begunMs.set(id, nowMs);
      at += template.length;
    }
    this.#asked += count;
    this.#socket.write(bytes);
  }

  #frame(type: number, flags: number, streamId: number, bytes: Buffer, start: number, end: number): void {
    if (type === frameType.data) {
      this.#received += end - start;
      if (this.#received > 1 << 28) {
        this.#socket.write(frame(frameType.windowUpdate, 0, 0, uint32(this.#received)));
        this.#received = 0;
      }
      if (end === start) return;
      const whole = this.#whole;
      if (whole !== null && whole.length === end - start && whole.compare(bytes, start, end) === 0)
        this.#bodies.set(streamId, whole);
      else
        this.#bodies.set(
          streamId,
          Buffer.concat([this.#bodies.get(streamId) ?? Buffer.alloc(0), bytes.subarray(start, end)]),
        );
    } else if (type === frameType.headers) {
      this.#decoder.decode(bytes, start, end, {
        field: ({ name, value }) => {
          if (name === 'grpc-status') this.#status = value;
        },
      });
    } else if (type === frameType.settings && (flags & flag.ack) === 0) {
      this.#socket.write(frame(frameType.settings, flag.ack, 0));
    } else if (type === frameType.ping && (flags & flag.ack) === 0) {
      this.#socket.write(frame(frameType.ping, flag.ack, 0, bytes.subarray(start, end)));
    } else if (type === frameType.rstStream || type === frameType.goAway) {
      this.#failed(new Error(`frame ${type} of stream ${streamId}`));
    }
    if (type > frameType.headers || (flags & flag.endStream) === 0) return;
    const body = this.#bodies.get(streamId);
    this.#bodies.delete(streamId);
    const isRight = this.#status === '0' && body !== undefined && this.#isExpected(body);
    if (!isRight) this.#failed(new Error(`stream ${streamId} got a wrong answer, status ${this.#status}`));
    this.#status = '';
    this.#done += 1;
    this.#answered(streamId);
  }

  #answered(streamId: number): void {
    if (this.#timed !== null) {
      const { begunMs, tookMs } = this.#timed;
      tookMs.push(performance.now() - (begunMs.get(streamId) ?? Number.NaN));
      begunMs.delete(streamId);
    }
    for (const awaited of this.#awaited) {
      if (streamId < awaited.before) awaited.left -= 1;
      if (awaited.left > 0) continue;
      this.#awaited.delete(awaited);
      awaited.answered();
    }
  }

  #isExpected(body: Buffer): boolean {
    if (body === this.#whole) return true;
    return typeof this.#expected === 'function'
      ? this.#expected(body.subarray(prefixOctets))
      : this.#whole?.equals(body) === true;
  }
}

const prefixOctets = 5;

/** A literal that is added to the table of the peer (RFC 7541 section 6.2.1). */
function incremental(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.of(0x40, name.length), Buffer.from(name), Buffer.of(value.length), Buffer.from(value)]);
}
