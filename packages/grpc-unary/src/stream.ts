import type { Call, Handler, Peer } from './call.ts';
import { MessageAssembly } from './message-assembly.ts';
import type { Refusal } from './refusal.ts';
import type { Timer } from './time.ts';

/** What of an answer waits for the peer's windows. */
export interface Waiting {
  readonly bytes: Uint8Array;
  offset: number;
  /** Null: the last DATA frame ends the stream. */
  readonly trailers: Buffer | null;
}

/** One call, from its header block to the end of its answer; what its handler sees of it is `Call`. */
export class Stream implements Call {
  readonly id: number;
  readonly method: string;
  readonly peer: Peer;
  readonly deadlineMs: number;
  readonly handler: Handler | null;
  readonly contentLength: number;
  /** The answer, where it is known before the handler is asked. */
  refusal: Refusal | null;
  readonly assembly = new MessageAssembly();
  receivedOctets = 0;
  receiveWindow: number;
  /** May be negative (RFC 9113 section 6.9.2). */
  sendWindow: number;
  /** The peer has sent all it had. */
  isEnded = false;
  /** No frame is sent on it any more. */
  isClosed = false;
  /** Its handler has not answered yet. */
  isRunning = false;
  waiting: Waiting | null = null;
  timer: Timer | null = null;
  #controller: AbortController | null = null;

  constructor(
    id: number,
    peer: Peer,
    request: {
      readonly method: string;
      readonly handler: Handler | null;
      readonly refusal: Refusal | null;
      readonly contentLength: number;
      readonly deadlineMs: number;
    },
    windows: { readonly receive: number; readonly send: number },
  ) {
    this.id = id;
    this.peer = peer;
    this.method = request.method;
    this.handler = request.handler;
    this.refusal = request.refusal;
    this.contentLength = request.contentLength;
    this.deadlineMs = request.deadlineMs;
    this.receiveWindow = windows.receive;
    this.sendWindow = windows.send;
  }

  get message(): Buffer {
    const { message } = this.assembly;
    if (message === null) throw new Error('the message is not whole');
    return message;
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    if (this.isClosed) this.#controller.abort();
    return this.#controller.signal;
  }

  /** Nothing is sent or expected on it from here on. */
  close(): void {
    this.isClosed = true;
    this.waiting = null;
    this.timer?.cancel();
    this.timer = null;
    if (this.isRunning) this.#controller?.abort();
  }
}
