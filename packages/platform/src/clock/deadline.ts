import type { Clock } from './port.ts';

/** What comes of a promise, or of `onLate` when nothing has after `timeoutMs`; the promise itself goes on. */
export function inTime<T, L>(
  clock: Pick<Clock, 'setTimer'>,
  timeoutMs: number,
  promise: Promise<T>,
  onLate: () => L,
): Promise<T | L> {
  return new Promise((resolve, reject) => {
    const timer = clock.setTimer(() => {
      try {
        resolve(onLate());
      } catch (error) {
        reject(error);
      }
    }, timeoutMs);
    promise.then(
      (value) => {
        timer.cancel();
        resolve(value);
      },
      (error: unknown) => {
        timer.cancel();
        reject(error);
      },
    );
  });
}
