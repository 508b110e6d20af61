import type { Budget } from './budget.ts';
import { type Refusal, refusals } from './refusal.ts';

export const prefixOctets = 5;
const keptPartsMax = 4;

/** The one length-prefixed message of a request, out of any number of DATA frames. */
export class MessageAssembly {
  #prefix: Buffer | null = null;
  #prefixLength = 0;
  #message: Buffer | null = null;
  #length = 0;
  #taken = 0;

  /** Null while it is not whole. */
  get message(): Buffer | null {
    return this.#message !== null && this.#length === this.#message.length ? this.#message : null;
  }

  /** A message that is whole in its first frame stays where it is; any other takes of the budget what its prefix says. */
  push(bytes: Buffer, from: number, end: number, octetsMax: number, budget: Budget): Refusal | null {
    let start = from;
    if (this.#message === null) {
      if (this.#prefixLength === 0 && end - start >= prefixOctets) {
        const problem = judgePrefix(bytes, start, octetsMax);
        if (problem !== null) return problem;
        const length = bytes.readUInt32BE(start + 1);
        start += prefixOctets;
        if (end - start === length) {
          this.#message = bytes.subarray(start, end);
          this.#length = length;
          return null;
        }
        if (!this.#begin(length, budget)) return refusals.noMemory;
      } else {
        this.#prefix ??= Buffer.alloc(prefixOctets);
        const length = Math.min(prefixOctets - this.#prefixLength, end - start);
        bytes.copy(this.#prefix, this.#prefixLength, start, start + length);
        this.#prefixLength += length;
        if (this.#prefixLength < prefixOctets) return null;
        const problem = judgePrefix(this.#prefix, 0, octetsMax);
        if (problem !== null) return problem;
        start += length;
        if (!this.#begin(this.#prefix.readUInt32BE(1), budget)) return refusals.noMemory;
      }
    }
    const message = this.#message ?? nothing;
    if (end - start > message.length - this.#length) return refusals.notOneMessage;
    bytes.copy(message, this.#length, start, end);
    this.#length += end - start;
    return null;
  }

  /** For a message that is kept for longer: that it does not hold all that came in one chunk with it. */
  detach(): void {
    const message = this.#message;
    if (message !== null && message.buffer.byteLength > keptPartsMax * message.length) {
      this.#message = Buffer.from(message);
    }
  }

  /** The message is not used any more, or nobody waits for its rest. */
  release(budget: Budget): void {
    if (this.#taken > 0) budget.giveBack(this.#taken);
    this.#taken = 0;
  }

  #begin(length: number, budget: Budget): boolean {
    if (!budget.take(length)) return false;
    this.#taken = length;
    this.#message = Buffer.allocUnsafeSlow(length);
    return true;
  }
}

const nothing = Buffer.alloc(0);

function judgePrefix(bytes: Buffer, start: number, octetsMax: number): Refusal | null {
  const compressed = bytes[start] as number;
  if (compressed !== 0) return compressed === 1 ? refusals.compressed : refusals.notOneMessage;
  return bytes.readUInt32BE(start + 1) > octetsMax ? refusals.messageTooLarge : null;
}
