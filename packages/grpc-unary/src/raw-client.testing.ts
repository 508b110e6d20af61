import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { clientPreface, flag, frameType, headerOctets } from './frame.ts';
import { HpackDecoder } from './hpack/decoder.ts';
import { encodeHeaders } from './hpack/encoder.ts';

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

export type Fields = readonly (readonly [string, string])[];

export const callFields: Fields = [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', '/test.Echo/Say'],
  [':authority', 'test'],
  ['content-type', 'application/grpc'],
  ['te', 'trailers'],
];

export function frame(type: number, flags: number, streamId: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(headerOctets);
  header.writeUIntBE(payload.length, 0, 3);
  header[3] = type;
  header[4] = flags;
  header.writeUInt32BE(streamId, 5);
  return Buffer.concat([header, payload]);
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** A SETTINGS frame. */
export function settings(...entries: readonly (readonly [id: number, value: number])[]): Buffer {
  const payload = entries.map(([id, value]) => Buffer.concat([Buffer.of(0, id), uint32(value)]));
  return frame(frameType.settings, 0, 0, Buffer.concat(payload));
}

export function headers(streamId: number, fields: Fields = callFields, flags: number = flag.endHeaders): Buffer {
  return frame(frameType.headers, flags, streamId, encodeHeaders(fields));
}

/** A message with its prefix. */
export function prefixed(message: Uint8Array, compressed = 0): Buffer {
  return Buffer.concat([Buffer.of(compressed), uint32(message.length), message]);
}

export function data(streamId: number, payload: Uint8Array, flags: number = flag.endStream): Buffer {
  return frame(frameType.data, flags, streamId, payload);
}

/** All frames of one call. */
export function callOf(streamId: number, message: string, fields: Fields = callFields): Buffer {
  return Buffer.concat([headers(streamId, fields), data(streamId, prefixed(Buffer.from(message)))]);
}

/** What came on one stream. */
export interface StreamAnswer {
  readonly fields: Record<string, string>;
  readonly body: Buffer;
  readonly resetCode: number | null;
}

/** A client that sends what a test says, and judges nothing. */
export class RawClient {
  readonly socket: Socket;
  readonly frames: Frame[] = [];
  readonly answers = new Map<number, { fields: Record<string, string>; body: Buffer; resetCode: number | null }>();
  readonly ended = new Set<number>();
  goAway: { readonly lastStreamId: number; readonly code: number } | null = null;
  isClosed = false;
  readonly #decoder = new HpackDecoder(4096);
  readonly #waiting = new Set<() => void>();
  #rest: Buffer = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.isClosed = true;
      this.#wake();
    });
  }

  send(...frames: readonly Buffer[]): void {
    this.socket.write(Buffer.concat(frames));
  }

  /** Resolves when the condition holds; it is asked again with each frame. Rejects when the connection ends without it. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.isClosed) throw new Error('the connection ended');
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.add(resolve);
      await promise;
    }
  }

  async answer(streamId: number): Promise<StreamAnswer> {
    await this.until(() => this.ended.has(streamId));
    return this.answers.get(streamId) ?? { fields: {}, body: Buffer.alloc(0), resetCode: null };
  }

  /** The code of GOAWAY, when the connection is over. */
  async end(): Promise<number | null> {
    await this.until(() => this.isClosed);
    return this.goAway?.code ?? null;
  }

  /** Resolves when the server has read all that was sent before. */
  async settled(): Promise<void> {
    const payload = Buffer.alloc(8);
    payload.writeUInt32BE(++this.#pings, 4);
    this.send(frame(frameType.ping, 0, 0, payload));
    await this.until(() =>
      this.frames.some(
        ({ type, flags, payload: echo }) => type === frameType.ping && flags === flag.ack && echo.equals(payload),
      ),
    );
  }

  #pings = 0;

  #read(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= headerOctets) {
      const end = headerOctets + this.#rest.readUIntBE(0, 3);
      if (this.#rest.length < end) break;
      const [type = 0, flags = 0] = this.#rest.subarray(3, 5);
      const payload = this.#rest.subarray(headerOctets, end);
      const received = { type, flags, streamId: this.#rest.readUInt32BE(5), payload };
      this.#rest = this.#rest.subarray(end);
      this.frames.push(received);
      this.#note(received);
    }
    this.#wake();
  }

  #note({ type, flags, streamId, payload }: Frame): void {
    if (type === frameType.goAway)
      this.goAway = { lastStreamId: payload.readUInt32BE(0), code: payload.readUInt32BE(4) };
    if (type !== frameType.headers && type !== frameType.data && type !== frameType.rstStream) return;
    const answer = this.answers.get(streamId) ?? { fields: {}, body: Buffer.alloc(0), resetCode: null };
    this.answers.set(streamId, answer);
    if (type === frameType.headers) {
      this.#decoder.decode(payload, 0, payload.length, {
        field: ({ name, value }) => {
          answer.fields[name] = value;
        },
      });
    }
    if (type === frameType.data) answer.body = Buffer.concat([answer.body, payload]);
    if (type === frameType.rstStream) answer.resetCode = payload.readUInt32BE(0);
    if (type === frameType.rstStream || (flags & flag.endStream) !== 0) this.ended.add(streamId);
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}

/** Connected; with the preface and SETTINGS sent, unless a test sends them. */
export async function connectRaw(port: number, begin: Buffer | null = settings()): Promise<RawClient> {
  const socket = connect({ host: '127.0.0.1', port });
  await once(socket, 'connect');
  const client = new RawClient(socket);
  if (begin !== null) client.send(clientPreface, begin);
  return client;
}
