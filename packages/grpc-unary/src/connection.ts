/**
 * One HTTP/2 connection of the server side (RFC 9113), for unary calls. What is wrong with a stream ends the stream; what
 * leaves in doubt how the rest is to be read ends the connection. Every header block passes through the decoder.
 * @module
 */
import type { Socket } from 'node:net';
import { type HttpAnswer, trailersOnly } from './answers.ts';
import { Budget } from './budget.ts';
import type { Answer, Handler, Peer } from './call.ts';
import { FloodGuard } from './flood-guard.ts';
import {
  ConnectionError,
  type ErrorCode,
  errorCode,
  flag,
  frameType,
  setting,
  streamIdMax,
  windowMax,
} from './frame.ts';
import { FrameReader, type FrameSink } from './frame-reader.ts';
import { HeaderBlock } from './header-block.ts';
import { CompressionError } from './hpack/compression-error.ts';
import { HpackDecoder } from './hpack/decoder.ts';
import type { Limits } from './limits.ts';
import { judge, type Refusal, refusals } from './refusal.ts';
import { RequestHead } from './request-head.ts';
import { Sender } from './sender.ts';
import { Stream } from './stream.ts';
import { StreamIds } from './stream-ids.ts';
import { StreamTable } from './stream-table.ts';
import type { Time, Timer } from './time.ts';

/** What the connections of a server have in common. */
export interface Shared {
  readonly handlers: ReadonlyMap<string, Handler>;
  readonly limits: Limits;
  readonly time: Time;
  /** From 0 up to 1. */
  readonly random: () => number;
  readonly budget: Budget;
  /** Of the peer's doing: why its connection was ended. */
  onViolation(reason: string, peer: Peer): void;
  /** Of a handler's doing. */
  onFailure(error: unknown, method: string): void;
  onClose(connection: Connection): void;
}

const tableOctets = 4096;
const streamWindow = 262_144;
const connectionWindow = 1_048_576;
const defaultConnectionWindow = 65_535;
const keepAlivePayload = Buffer.from('keepaliv');
const drainPayload = Buffer.from('draining');
/** How long a peer may go on sending to a connection that ended, so that it still reads why. */
const lingerMs = 1000;
/** How long calls may be on their way that were sent before the peer knew that no more are taken. */
const drainAnnouncedMs = 1000;

/**
 * After so long, looked at every so many frames, the others have their turn: calls that came together, such as those of a flood, would
 * hold up those of every other connection for as long as all of them take.
 */
const turnMsMax = 0.05;
const turnFramesMin = 4;
/** With so much before it, nothing more is taken from the socket. */
const waitingOctetsMax = 32_768;

/** `grpc-timeout` reaches thousands of years. */
const timerMsMax = 2 ** 31 - 1;

type Drain = 'no' | 'announced' | 'final';

export class Connection implements FrameSink {
  readonly #socket: Socket;
  readonly #shared: Shared;
  readonly #peer: Peer;
  readonly #reader = new FrameReader(this);
  readonly #decoder = new HpackDecoder(tableOctets);
  readonly #head: RequestHead;
  readonly #sender = new Sender();
  readonly #guard: FloodGuard;
  readonly #budget: Budget;
  readonly #ids = new StreamIds();
  readonly #streams = new StreamTable<Stream>();
  readonly #incomplete: Stream[] = [];
  /** Handlers that have not answered, whose streams are closed. */
  #orphans = 0;
  #headerBlock: HeaderBlock | null = null;
  #window = connectionWindow;
  #isReady = false;
  #isClosed = false;
  #drain: Drain = 'no';
  #isReading = false;
  /** What came and was not read yet: it waits for the next turn of this connection. */
  readonly #waiting: Buffer[] = [];
  #waitingOctets = 0;
  /** Of the first that waits. */
  #readTo = 0;
  #isTurnDue = false;
  /** Its peer sends no more. */
  #isLast = false;
  #framesLeft = 0;
  #turnEndMs = 0;
  readonly #isEnough: () => boolean = () => {
    if (this.#framesLeft > 0) return false;
    this.#framesLeft = turnFramesMin;
    return this.#isTurnOver();
  };
  #isFlushDue = false;
  #nowMs: number;
  #drains = 0;
  #handshakeTimer: Timer | null;
  #keepAliveTimer: Timer | null = null;
  #ageTimer: Timer | null;
  #drainTimer: Timer | null = null;
  #stallTimer: Timer | null = null;
  #lingerTimer: Timer | null = null;

  constructor(socket: Socket, peer: Peer, shared: Shared) {
    const { limits, time, random } = shared;
    this.#socket = socket;
    this.#shared = shared;
    this.#peer = peer;
    this.#head = new RequestHead(limits.headerListOctetsMax);
    this.#guard = new FloodGuard(time, limits);
    this.#budget = new Budget(limits.connectionOctetsMax, shared.budget);
    this.#nowMs = time.now().monotonicMs;
    this.#handshakeTimer = time.setTimer(() => this.destroy('no settings in time'), limits.handshakeMsMax);
    const ageMs = limits.connectionAgeMsMax * (0.9 + 0.2 * random());
    this.#ageTimer = time.setTimer(() => this.drain(), ageMs);
    this.#watchSilence(limits.keepAliveMs);
    socket.setNoDelay(true);
    socket
      .on('data', (chunk: Buffer) => this.#onChunk(chunk))
      .on('drain', () => this.#resume())
      .on('end', () => this.#readLast())
      .on('error', () => this.#close())
      .on('close', () => this.#closed());
    this.#sender.ownSettings([
      [setting.maxConcurrentStreams, limits.concurrentStreamsMax],
      [setting.initialWindowSize, streamWindow],
      [setting.maxHeaderListSize, limits.headerListOctetsMax],
    ]);
    this.#sender.windowUpdate(0, connectionWindow - defaultConnectionWindow);
    this.#flush();
  }

  /**
   * Takes no more calls than those that are on their way, and ends when they are answered, or at a deadline (RFC 9113
   * section 6.8).
   */
  drain(): void {
    if (this.#isClosed || this.#drain !== 'no') return;
    if (!this.#isReady) {
      this.destroy();
      return;
    }
    this.#drain = 'announced';
    this.#sender.goAway(streamIdMax, errorCode.noError);
    this.#sender.ping(drainPayload, 0);
    this.#flushSoon();
    this.#drainTimer = this.#shared.time.setTimer(() => this.#finishDrain(), drainAnnouncedMs);
  }

  /** Ends at once; a reason tells of a violation. */
  destroy(reason?: string): void {
    if (reason !== undefined && !this.#isClosed) this.#shared.onViolation(reason, this.#peer);
    this.#close();
    this.#socket.destroy();
  }

  frame(type: number, flags: number, streamId: number, bytes: Buffer, start: number, end: number): void {
    if (this.#isClosed) return;
    this.#framesLeft -= 1;
    if (!this.#isReady) this.#greet(type, flags);
    if (this.#headerBlock !== null && type !== frameType.continuation) {
      throw new ConnectionError(errorCode.protocolError, 'another frame within a header block');
    }
    switch (type) {
      case frameType.data:
        this.#onData(flags, streamId, bytes, start, end);
        return;
      case frameType.headers:
        this.#onHeaders(flags, streamId, bytes, start, end);
        return;
      case frameType.continuation:
        this.#onContinuation(flags, streamId, bytes.subarray(start, end));
        return;
    }
    this.#guard.count();
    switch (type) {
      case frameType.priority:
        this.#onPriority(streamId, bytes, start, end);
        return;
      case frameType.rstStream:
        this.#onReset(streamId, end - start);
        return;
      case frameType.settings:
        this.#onSettings(flags, streamId, bytes, start, end);
        return;
      case frameType.pushPromise:
        throw new ConnectionError(errorCode.protocolError, 'a push of a client');
      case frameType.ping:
        this.#onPing(flags, streamId, bytes.subarray(start, end));
        return;
      case frameType.goAway:
        if (streamId !== 0) throw new ConnectionError(errorCode.protocolError, 'GOAWAY on a stream');
        if (end - start < 8) throw new ConnectionError(errorCode.frameSizeError, 'GOAWAY of a wrong length');
        return;
      case frameType.windowUpdate:
        this.#onWindowUpdate(streamId, bytes, start, end);
        return;
    }
  }

  /** RFC 9113 section 3.4 */
  #greet(type: number, flags: number): void {
    if (type !== frameType.settings || (flags & flag.ack) !== 0) {
      throw new ConnectionError(errorCode.protocolError, 'it does not begin with SETTINGS');
    }
    this.#isReady = true;
    this.#handshakeTimer?.cancel();
    this.#handshakeTimer = null;
  }

  // Frames of calls

  #onHeaders(flags: number, streamId: number, bytes: Buffer, from: number, to: number): void {
    // Even numbers are those of a server (RFC 9113 section 5.1.1).
    if (streamId % 2 === 0) throw new ConnectionError(errorCode.protocolError, 'HEADERS on no stream of a client');
    let start = from;
    let end = to;
    if ((flags & flag.padded) !== 0) {
      end -= paddingOf(bytes, start, end);
      start += 1;
    }
    let isSelfDependent = false;
    if ((flags & flag.priority) !== 0) {
      if (end - start < 5) throw new ConnectionError(errorCode.frameSizeError, 'HEADERS too short for its priority');
      isSelfDependent = dependencyOf(bytes, start) === streamId;
      start += 5;
    }
    const isEndOfStream = (flags & flag.endStream) !== 0;
    if ((flags & flag.endHeaders) !== 0) {
      this.#onHeaderBlock(streamId, isEndOfStream, isSelfDependent, bytes, start, end);
      return;
    }
    const octetsMax = 2 * this.#shared.limits.headerListOctetsMax;
    this.#headerBlock = new HeaderBlock(streamId, isEndOfStream, isSelfDependent, octetsMax);
    this.#continueHeaderBlock(this.#headerBlock, bytes.subarray(start, end));
  }

  #onContinuation(flags: number, streamId: number, fragment: Buffer): void {
    const block = this.#headerBlock;
    if (block === null || block.streamId !== streamId) {
      throw new ConnectionError(errorCode.protocolError, 'CONTINUATION of no header block');
    }
    this.#continueHeaderBlock(block, fragment);
    if ((flags & flag.endHeaders) === 0) return;
    this.#headerBlock = null;
    const whole = block.whole();
    this.#onHeaderBlock(streamId, block.isEndOfStream, block.isSelfDependent, whole, 0, whole.length);
  }

  #continueHeaderBlock(block: HeaderBlock, fragment: Buffer): void {
    if (fragment.length === 0) this.#guard.count();
    block.add(fragment);
  }

  #onHeaderBlock(
    streamId: number,
    isEnd: boolean,
    isSelfDependent: boolean,
    bytes: Buffer,
    start: number,
    end: number,
  ): void {
    const head = this.#head;
    head.reset();
    try {
      this.#decoder.decode(bytes, start, end, head);
    } catch (error) {
      if (error instanceof CompressionError) throw new ConnectionError(errorCode.compressionError, error.message);
      throw error;
    }
    const stream = this.#streams.get(streamId);
    if (stream !== undefined) {
      this.#onTrailers(stream, isEnd, isSelfDependent);
      return;
    }
    if (streamId <= this.#ids.last) {
      this.#onLateFrame(streamId, isEnd);
      return;
    }
    this.#ids.open(streamId);
    if (isSelfDependent || (head.isMalformed && !head.isTooLarge)) {
      this.#reset(streamId, errorCode.protocolError, isEnd);
    } else if (
      this.#drain === 'final' ||
      this.#streams.size + this.#orphans >= this.#shared.limits.concurrentStreamsMax
    ) {
      this.#reset(streamId, errorCode.refusedStream, isEnd);
    } else {
      this.#open(streamId, isEnd);
    }
  }

  #open(streamId: number, isEnd: boolean): void {
    const { method, path, contentLength, timeoutMs } = this.#head;
    let refusal = judge(this.#head);
    const handler = method === 'POST' && refusal === null ? (this.#shared.handlers.get(path) ?? null) : null;
    if (handler === null) refusal ??= refusals.unknownMethod;
    const stream = new Stream(
      streamId,
      this.#peer,
      { method: path, handler, refusal, contentLength, deadlineMs: this.#nowMs + (timeoutMs ?? 0) },
      { receive: streamWindow, send: this.#sender.settings.initialWindow },
    );
    this.#streams.add(stream);
    if (isEnd) this.#end(stream);
    else this.#incomplete.push(stream);
  }

  /** RFC 9113 section 8.1: the second header block of a request is its last frame. */
  #onTrailers(stream: Stream, isEnd: boolean, isSelfDependent: boolean): void {
    if (stream.isEnded) this.#reset(stream.id, errorCode.streamClosed, true);
    else if (!isEnd || isSelfDependent || this.#head.isMalformedAsTrailers || this.#head.isTooLarge) {
      this.#reset(stream.id, errorCode.protocolError, isEnd);
    } else this.#end(stream);
  }

  #onData(flags: number, streamId: number, bytes: Buffer, from: number, to: number): void {
    if (streamId === 0) throw new ConnectionError(errorCode.protocolError, 'DATA on no stream');
    this.#window -= to - from;
    if (this.#window < 0) throw new ConnectionError(errorCode.flowControlError, 'more DATA than allowed');
    if (this.#window < connectionWindow / 2) {
      this.#sender.windowUpdate(0, connectionWindow - this.#window);
      this.#window = connectionWindow;
    }
    let start = from;
    let end = to;
    if ((flags & flag.padded) !== 0) {
      end -= paddingOf(bytes, start, end);
      start += 1;
    }
    const isEnd = (flags & flag.endStream) !== 0;
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      if (this.#ids.isIdle(streamId)) throw new ConnectionError(errorCode.protocolError, 'DATA on an idle stream');
      this.#onLateFrame(streamId, isEnd);
      return;
    }
    if (stream.isEnded) {
      this.#reset(streamId, errorCode.streamClosed, true);
      return;
    }
    if (start === end && !isEnd) this.#guard.count();
    stream.receiveWindow -= to - from;
    if (stream.receiveWindow < 0) {
      this.#reset(streamId, errorCode.flowControlError, isEnd);
      return;
    }
    stream.receivedOctets += end - start;
    if (stream.refusal === null && end > start) {
      stream.refusal = stream.assembly.push(bytes, start, end, this.#shared.limits.messageOctetsMax, this.#budget);
      if (stream.refusal !== null) stream.assembly.release(this.#budget);
    }
    if (isEnd) this.#end(stream);
    else if (stream.receiveWindow < streamWindow / 2) this.#widen(stream);
  }

  /** What is refused gets no more room: it is answered before its end. */
  #widen(stream: Stream): void {
    if (stream.refusal !== null) {
      this.#refuse(stream, stream.refusal);
      return;
    }
    this.#sender.windowUpdate(stream.id, streamWindow - stream.receiveWindow);
    stream.receiveWindow = streamWindow;
  }

  /** HEADERS or DATA on a stream that is closed: it may have been on its way when this side closed it, or is an error. */
  #onLateFrame(streamId: number, isEnd: boolean): void {
    this.#guard.count();
    if (this.#ids.isAbandoned(streamId)) {
      if (isEnd) this.#ids.settle(streamId);
      return;
    }
    // RFC 9113 sections 5.1 and 5.1.1
    if (this.#ids.wasUsed(streamId)) throw new ConnectionError(errorCode.streamClosed, 'a frame after the last one');
    throw new ConnectionError(errorCode.protocolError, 'a stream out of order');
  }

  // Answers

  #end(stream: Stream): void {
    stream.isEnded = true;
    stream.timer?.cancel();
    stream.timer = null;
    // RFC 9113 section 8.1.1
    if (stream.contentLength >= 0 && stream.contentLength !== stream.receivedOctets) {
      this.#reset(stream.id, errorCode.protocolError, true);
      return;
    }
    const { handler } = stream;
    if (stream.refusal !== null || handler === null || stream.assembly.message === null) {
      this.#refuse(stream, stream.refusal ?? refusals.notOneMessage);
      return;
    }
    if (stream.deadlineMs <= this.#nowMs) {
      this.#refuse(stream, refusals.deadline);
      return;
    }
    let answer: Answer | Promise<Answer>;
    try {
      answer = handler(stream);
    } catch (error) {
      this.#fail(stream, error);
      return;
    }
    if (answer instanceof Promise) this.#await(stream, answer);
    else this.#answer(stream, answer);
  }

  #await(stream: Stream, promise: Promise<Answer>): void {
    stream.isRunning = true;
    stream.assembly.detach();
    if (stream.deadlineMs < Number.POSITIVE_INFINITY) this.#arm(stream, stream.deadlineMs);
    const settle = (act: () => void) => {
      stream.isRunning = false;
      if (stream.isClosed) {
        this.#orphans -= 1;
        stream.assembly.release(this.#budget);
      } else this.#guarded(act);
    };
    promise.then(
      (answer) => settle(() => this.#answer(stream, answer)),
      (error: unknown) => settle(() => this.#fail(stream, error)),
    );
  }

  #answer(stream: Stream, answer: Answer): void {
    if (answer instanceof Uint8Array) {
      this.#afterAnswer(stream, this.#sender.answer(stream, answer));
      return;
    }
    let block: Buffer;
    try {
      block = trailersOnly(answer);
    } catch (error) {
      this.#fail(stream, error);
      return;
    }
    this.#afterAnswer(stream, this.#sender.headersOnly(stream, block));
  }

  #fail(stream: Stream, error: unknown): void {
    this.#shared.onFailure(error, stream.method);
    this.#refuse(stream, refusals.failed);
  }

  #refuse(stream: Stream, refusal: Refusal): void {
    this.#afterAnswer(stream, this.#sendRefusal(stream, refusal));
  }

  #sendRefusal(stream: Stream, refusal: Buffer | HttpAnswer): boolean {
    return Buffer.isBuffer(refusal) ? this.#sender.headersOnly(stream, refusal) : this.#sender.http(stream, refusal);
  }

  #afterAnswer(stream: Stream, isWhole: boolean): void {
    if (isWhole) this.#finish(stream);
    else this.#watchStall();
    if (!this.#isReading) this.#flushSoon();
  }

  #finish(stream: Stream): void {
    // RFC 9113 section 8.1: the rest of the request is not wanted.
    if (!stream.isEnded) {
      this.#sender.reset(stream.id, errorCode.noError);
      this.#ids.abandon(stream.id);
      this.#guard.count();
    } else this.#guard.answered();
    this.#remove(stream);
  }

  /** Says that a stream is over, unless its peer said so. */
  #reset(streamId: number, code: ErrorCode, isEnd: boolean): void {
    const stream = this.#streams.get(streamId);
    if (!isEnd && stream?.isEnded !== true) this.#ids.abandon(streamId);
    this.#sender.reset(streamId, code);
    if (stream !== undefined) this.#remove(stream);
    this.#guard.count();
  }

  #remove(stream: Stream): void {
    this.#streams.delete(stream.id);
    this.#sender.forget(stream);
    stream.close();
    if (stream.isRunning) this.#orphans += 1;
    else stream.assembly.release(this.#budget);
    if (this.#drain === 'final' && this.#streams.size === 0) this.#leave();
  }

  #arm(stream: Stream, atMs: number): void {
    stream.timer?.cancel();
    stream.timer = this.#shared.time.setTimer(
      () => this.#expire(stream),
      Math.min(timerMsMax, Math.max(0, atMs - this.#nowMs)),
    );
  }

  #expire(stream: Stream): void {
    stream.timer = null;
    this.#guarded(() => {
      // An answer that began can only be broken off.
      if (stream.waiting !== null) this.#reset(stream.id, errorCode.cancel, stream.isEnded);
      else this.#refuse(stream, refusals.deadline);
    });
    this.#flushSoon();
  }

  // Frames of streams and of the connection

  #onPriority(streamId: number, bytes: Buffer, start: number, end: number): void {
    if (streamId === 0) throw new ConnectionError(errorCode.protocolError, 'PRIORITY on no stream');
    const problem =
      end - start !== 5
        ? errorCode.frameSizeError
        : dependencyOf(bytes, start) === streamId
          ? errorCode.protocolError
          : null;
    if (problem === null) return;
    // On an idle stream there is nothing to reset (RFC 9113 section 6.4).
    if (this.#ids.isIdle(streamId)) throw new ConnectionError(problem, 'PRIORITY is malformed');
    this.#reset(streamId, problem, false);
  }

  #onReset(streamId: number, length: number): void {
    if (this.#ids.isIdle(streamId)) throw new ConnectionError(errorCode.protocolError, 'RST_STREAM on no stream');
    if (length !== 4) throw new ConnectionError(errorCode.frameSizeError, 'RST_STREAM of a wrong length');
    this.#ids.settle(streamId);
    const stream = this.#streams.get(streamId);
    if (stream !== undefined) this.#remove(stream);
  }

  #onSettings(flags: number, streamId: number, bytes: Buffer, start: number, end: number): void {
    if (streamId !== 0) throw new ConnectionError(errorCode.protocolError, 'SETTINGS on a stream');
    if ((flags & flag.ack) !== 0) {
      if (end > start) throw new ConnectionError(errorCode.frameSizeError, 'an acknowledgement with settings');
      return;
    }
    const change = this.#sender.settings.apply(bytes, start, end);
    if (change !== 0) {
      for (const stream of this.#streams.values()) {
        stream.sendWindow += change;
        // RFC 9113 section 6.9.2
        if (stream.sendWindow > windowMax) throw new ConnectionError(errorCode.flowControlError, 'a window too large');
      }
    }
    this.#sender.settingsAck();
    if (change > 0) this.#resumeStreams();
  }

  #onPing(flags: number, streamId: number, payload: Buffer): void {
    if (streamId !== 0) throw new ConnectionError(errorCode.protocolError, 'PING on a stream');
    if (payload.length !== 8) throw new ConnectionError(errorCode.frameSizeError, 'PING of a wrong length');
    if ((flags & flag.ack) === 0) this.#sender.ping(payload, flag.ack);
    else if (this.#drain === 'announced' && payload.equals(drainPayload)) this.#finishDrain();
  }

  #onWindowUpdate(streamId: number, bytes: Buffer, start: number, end: number): void {
    if (end - start !== 4) throw new ConnectionError(errorCode.frameSizeError, 'WINDOW_UPDATE of a wrong length');
    const increment = bytes.readUInt32BE(start) & windowMax;
    if (streamId === 0) {
      if (increment === 0) throw new ConnectionError(errorCode.protocolError, 'an increment of nothing');
      this.#sender.widen(increment);
      this.#resumeStreams();
      return;
    }
    if (this.#ids.isIdle(streamId)) throw new ConnectionError(errorCode.protocolError, 'WINDOW_UPDATE on no stream');
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return;
    stream.sendWindow += increment;
    if (increment === 0) this.#reset(streamId, errorCode.protocolError, stream.isEnded);
    else if (stream.sendWindow > windowMax) this.#reset(streamId, errorCode.flowControlError, stream.isEnded);
    else if (this.#sender.resumeOne(stream)) this.#finish(stream);
  }

  #resumeStreams(): void {
    if (this.#sender.isWaiting) this.#sender.resume((stream) => this.#finish(stream));
  }

  // Reading and writing

  #onChunk(chunk: Buffer): void {
    if (this.#isClosed) return;
    this.#waiting.push(chunk);
    this.#waitingOctets += chunk.length;
    if (!this.#isTurnDue) this.#takeTurn();
    else if (this.#waitingOctets >= waitingOctetsMax) this.#socket.pause();
  }

  #takeTurn(): void {
    if (this.#waiting.length === 0) return;
    this.#nowMs = this.#shared.time.now().monotonicMs;
    this.#turnEndMs = this.#nowMs + turnMsMax;
    this.#framesLeft = turnFramesMin;
    this.#isReading = true;
    this.#guarded(() => this.#readWaiting());
    this.#isReading = false;
    for (const stream of this.#incomplete) {
      if (stream.isClosed || stream.isEnded) continue;
      this.#arm(stream, Math.min(stream.deadlineMs, this.#nowMs + this.#shared.limits.requestMsMax));
    }
    this.#incomplete.length = 0;
    this.#flush();
    if (this.#waiting.length > 0) this.#waitForTurn();
  }

  #readWaiting(): void {
    for (let chunk = this.#waiting[0]; chunk !== undefined; chunk = this.#waiting[0]) {
      this.#readTo = this.#reader.push(chunk, this.#readTo, this.#isEnough);
      if (this.#readTo < chunk.length) return;
      this.#readTo = 0;
      this.#waiting.shift();
      this.#waitingOctets -= chunk.length;
      if (this.#waiting.length > 0 && this.#isTurnOver()) return;
    }
  }

  #isTurnOver(): boolean {
    return !this.#isLast && this.#shared.time.now().monotonicMs >= this.#turnEndMs;
  }

  #waitForTurn(): void {
    if (this.#isTurnDue) return;
    this.#isTurnDue = true;
    // biome-ignore-start lint/plugin: after what others sent, which the next round of the event loop reads; no matter of time.
    setImmediate(() => setImmediate(() => this.#readOn()));
    // biome-ignore-end lint/plugin: as above
  }

  /** What waits, unless its answers had no room: then when there is. */
  #readOn(): void {
    this.#isTurnDue = false;
    if (this.#isClosed || this.#socket.writableNeedDrain) return;
    this.#takeTurn();
    const isRoom = this.#waitingOctets < waitingOctetsMax && !this.#socket.writableNeedDrain;
    if (this.#isClosed || !isRoom || !this.#socket.isPaused()) return;
    // Node then shows at once all that it has: that too is read in turns.
    this.#waitForTurn();
    this.#socket.resume();
  }

  /** When this side ends too, right behind this, the calls that came before have their answers. */
  #readLast(): void {
    this.#isLast = true;
    this.#takeTurn();
  }

  #guarded(act: () => void): void {
    try {
      act();
    } catch (error) {
      if (error instanceof ConnectionError) this.#breakOff(error);
      else {
        this.#shared.onFailure(error, '');
        this.#breakOff(new ConnectionError(errorCode.internalError, 'an unforeseen error'));
      }
    }
  }

  /** Answers of one turn of the event loop leave together. */
  #flushSoon(): void {
    if (this.#isFlushDue || this.#isReading) return;
    this.#isFlushDue = true;
    process.nextTick(() => {
      this.#isFlushDue = false;
      this.#flush();
    });
  }

  #flush(): void {
    const { output } = this.#sender;
    while (!output.isEmpty && !this.#socket.destroyed) {
      const isRoom = this.#socket.write(output.take());
      if (this.#socket.writableLength === 0) output.reuse();
      if (this.#isClosed) return;
      // Who does not read its answers asks for no more of them.
      if (!isRoom) {
        this.#socket.pause();
        this.#watchStall();
        return;
      }
      this.#guarded(() => this.#resumeStreams());
    }
  }

  #resume(): void {
    this.#drains += 1;
    this.#guarded(() => this.#resumeStreams());
    this.#flush();
    if (!this.#socket.writableNeedDrain) this.#waitForTurn();
  }

  #watchStall(): void {
    if (this.#stallTimer !== null || this.#isClosed) return;
    const before = this.#drains + this.#sender.sentOctets;
    this.#stallTimer = this.#shared.time.setTimer(() => {
      this.#stallTimer = null;
      if (!this.#socket.writableNeedDrain && !this.#sender.isWaiting) return;
      if (this.#drains + this.#sender.sentOctets === before) this.destroy('it does not read');
      else this.#watchStall();
    }, this.#shared.limits.stallMsMax);
  }

  #watchSilence(delayMs: number): void {
    const { time, limits } = this.#shared;
    this.#keepAliveTimer = time.setTimer(() => {
      const silentMs = time.now().monotonicMs - this.#nowMs;
      if (silentMs >= limits.keepAliveMs + limits.keepAliveTimeoutMs) {
        this.destroy('it is silent');
        return;
      }
      if (silentMs < limits.keepAliveMs) {
        this.#watchSilence(limits.keepAliveMs - silentMs);
        return;
      }
      this.#sender.ping(keepAlivePayload, 0);
      this.#flushSoon();
      this.#watchSilence(limits.keepAliveMs + limits.keepAliveTimeoutMs - silentMs);
    }, delayMs);
  }

  // The end

  #finishDrain(): void {
    if (this.#isClosed || this.#drain !== 'announced') return;
    this.#drain = 'final';
    this.#drainTimer?.cancel();
    this.#drainTimer = this.#shared.time.setTimer(() => this.destroy(), this.#shared.limits.drainMsMax);
    this.#sender.goAway(this.#ids.last, errorCode.noError);
    if (this.#streams.size === 0) this.#leave();
    else this.#flushSoon();
  }

  #breakOff({ code, message }: ConnectionError): void {
    if (this.#isClosed) return;
    this.#shared.onViolation(message, this.#peer);
    this.#sender.goAway(this.#ids.last, code);
    this.#leave();
  }

  /** Sends what there is, and waits a little for the peer to read it. */
  #leave(): void {
    if (this.#isClosed) return;
    this.#close();
    this.#flush();
    this.#socket.resume();
    this.#socket.end();
    this.#lingerTimer = this.#shared.time.setTimer(() => this.#socket.destroy(), lingerMs);
  }

  #close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#waiting.length = 0;
    for (const timer of [
      this.#handshakeTimer,
      this.#keepAliveTimer,
      this.#ageTimer,
      this.#drainTimer,
      this.#stallTimer,
    ]) {
      timer?.cancel();
    }
    this.#ageTimer = null;
    for (const stream of this.#streams.values()) {
      this.#sender.forget(stream);
      stream.close();
      if (stream.isRunning) this.#orphans += 1;
      else stream.assembly.release(this.#budget);
    }
    this.#streams.clear();
  }

  #closed(): void {
    this.#close();
    this.#lingerTimer?.cancel();
    this.#shared.onClose(this);
  }
}

/** Octets behind the content, which is what its first octet says (RFC 9113 section 6.1). */
function paddingOf(bytes: Buffer, start: number, end: number): number {
  const length = start < end ? (bytes[start] as number) : 0;
  if (start === end || length >= end - start)
    throw new ConnectionError(errorCode.protocolError, 'padding of a whole frame');
  return length;
}

function dependencyOf(bytes: Buffer, start: number): number {
  return bytes.readUInt32BE(start) & streamIdMax;
}
