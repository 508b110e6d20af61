import type { X509Certificate } from 'node:crypto';
import type { Failure } from './status.ts';

export interface Peer {
  readonly address: string;
  readonly port: number;
  /** What the peer proved to have, where TLS asked for it. */
  certificate(): X509Certificate | undefined;
}

/** What a handler gets. */
export interface Call {
  /** Such as `/package.Service/Method`. */
  readonly method: string;
  /** Belongs to the call: nobody writes to it. */
  readonly message: Buffer;
  readonly peer: Peer;
  /** As `Time` counts, or Infinity. */
  readonly deadlineMs: number;
  /** Aborts when nobody waits for an answer any more. */
  readonly signal: AbortSignal;
}

/** A message, which must not be written to any more, or how the call ends without one. */
export type Answer = Uint8Array | Failure;

/**
 * Answers at once or later. What it throws, the caller gets as INTERNAL, without its text. It counts against the streams of
 * its connection until it has answered, also when its caller went away.
 */
export type Handler = (call: Call) => Answer | Promise<Answer>;
