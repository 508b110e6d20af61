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

/** Calls on one connection, so many at once; each answer is compared with what is expected, and one that differs throws. */
export class TransportLoad {
  readonly #socket: Socket;
  readonly #expected: Buffer;
  readonly #template: Buffer;
  readonly #decoder = new HpackDecoder(4096);
  readonly #bodies = new Map<number, Buffer>();
  #next = 1;
  #wanted = 0;
  #done = 0;
  #due = 0;
  #received = 0;
  #status = '';
  #finished = (): void => {};
  #failed = (_error: Error): void => {};

  static async open(port: number, request: Buffer, expected: Buffer): Promise<TransportLoad> {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    await once(socket, 'connect');
    return new TransportLoad(socket, request, expected);
  }

  private constructor(socket: Socket, request: Buffer, expected: Buffer) {
    this.#socket = socket;
    this.#expected = prefixed(expected);
    // The first call puts its fields into the table of the server; the others name them by their index there.
    const first = Buffer.concat(fields.map(([name, value]) => incremental(name, value)));
    const indexed = Buffer.from(fields.map((_, index) => 0x80 | (62 + fields.length - 1 - index)));
    const body = frame(frameType.data, flag.endStream, 1, prefixed(request));
    this.#template = Buffer.concat([frame(frameType.headers, flag.endHeaders, 1, indexed), body]);
    socket.write(
      Buffer.concat([
        clientPreface,
        settings([setting.initialWindowSize, 1 << 20]),
        frame(frameType.windowUpdate, 0, 0, uint32(windowMax - 65_535)),
        frame(frameType.headers, flag.endHeaders, this.#take(), first),
        body,
      ]),
    );
    this.#due = 1;
    const reader = new FrameReader({
      frame: (type, flags, streamId, bytes, start, end) => this.#frame(type, flags, streamId, bytes, start, end),
    });
    reader.push(clientPreface);
    socket.on('data', (chunk: Buffer) => {
      reader.push(chunk);
      this.#refill();
    });
    socket.on('error', (error) => this.#failed(error));
    socket.on('close', () => this.#failed(new Error('the connection ended')));
  }

  /** Resolves with the count of calls that were answered, `concurrency` at a time, for so long. */
  async run(concurrency: number, ms: number): Promise<number> {
    const before = this.#done;
    this.#wanted = concurrency;
    this.#refill();
    const ended = new Promise<void>((resolve, reject) => {
      this.#finished = resolve;
      this.#failed = reject;
    });
    setTimeout(() => {
      this.#wanted = 0;
    }, ms);
    await ended;
    return this.#done - before;
  }

  close(): void {
    this.#failed = () => undefined;
    this.#socket.destroy();
  }

  #take(): number {
    const id = this.#next;
    this.#next += 2;
    return id;
  }

  #refill(): void {
    const count = this.#wanted - this.#due;
    if (this.#wanted === 0 && this.#due === 0) this.#finished();
    if (count <= 0) return;
    const template = this.#template;
    const bytes = Buffer.allocUnsafe(template.length * count);
    const second = headerOctets + fields.length;
    for (let index = 0; index < count; index += 1) {
      const at = index * template.length;
      template.copy(bytes, at);
      const id = this.#take();
      bytes.writeUInt32BE(id, at + 5);
      bytes.writeUInt32BE(id, at + second + 5);
    }
    this.#due += count;
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
      const isWhole = this.#expected.length === end - start && this.#expected.compare(bytes, start, end) === 0;
      if (isWhole) this.#bodies.set(streamId, this.#expected);
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
    const isRight = this.#status === '0' && (body === this.#expected || body?.equals(this.#expected) === true);
    if (!isRight) this.#failed(new Error(`stream ${streamId} got a wrong answer, status ${this.#status}`));
    this.#status = '';
    this.#due -= 1;
    this.#done += 1;
  }
}

/** A literal that is added to the table of the peer (RFC 7541 section 6.2.1). */
function incremental(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.of(0x40, name.length), Buffer.from(name), Buffer.of(value.length), Buffer.from(value)]);
}
