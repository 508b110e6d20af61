import { ConnectionError, errorCode } from './frame.ts';
import type { Limits } from './limits.ts';
import type { Time } from './time.ts';

/**
 * Counts the frames that cost a peer little and bring no call on: resets, empty frames, PING, SETTINGS, PRIORITY,
 * WINDOW_UPDATE, requests that are refused, unknown types. A peer that uses the connection gets more of them with each
 * call, any other as many as a bucket holds (CVE-2019-9512 and on, CVE-2023-44487, CVE-2025-8671; nghttp2 counts likewise).
 */
export class FloodGuard {
  readonly #time: Time;
  readonly #limits: Limits;
  #left: number;
  #filledAtMs: number;
  #calls = 0;

  constructor(time: Time, limits: Limits) {
    this.#time = time;
    this.#limits = limits;
    this.#left = limits.idleFramesBurst;
    this.#filledAtMs = time.now().monotonicMs;
  }

  answered(): void {
    this.#calls += 1;
  }

  /** Throws ConnectionError when there were too many. */
  count(): void {
    this.#left -= 1;
    if (this.#left < 0) this.#fill();
    if (this.#left < 0) throw new ConnectionError(errorCode.enhanceYourCalm, 'too many frames of no use');
  }

  #fill(): void {
    const nowMs = this.#time.now().monotonicMs;
    const { idleFramesBurst, idleFramesPerSecond, idleFramesPerCall } = this.#limits;
    const more = ((nowMs - this.#filledAtMs) / 1000) * idleFramesPerSecond + this.#calls * idleFramesPerCall;
    this.#left = Math.min(idleFramesBurst, this.#left + more);
    this.#filledAtMs = nowMs;
    this.#calls = 0;
  }
}
