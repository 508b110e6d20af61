/**
 * Virtual time, machines and the network between them. One event happens at a time, and everything it sets going by
 * promises alone is done before the next: a crash, a pause or a partition can fall between any two steps of any process.
 * @module
 */
import type { Clock } from '@token-gateway/platform';
import { sleepBy } from '@token-gateway/platform/testing';
import { Random } from './random.ts';

interface Event {
  readonly atMs: number;
  readonly order: number;
  run: (() => void) | null;
}

/** How often the engine gets a turn of its own, to clean up. */
const eventsPerTurn = 2000;

export class World {
  readonly random: Random;
  nowMs = 0;
  eventCount = 0;
  #order = 0;
  readonly #events: Event[] = [];

  constructor(seed: number) {
    this.random = new Random(seed, 'network');
  }

  /** Returns what takes it back. */
  at(atMs: number, run: () => void): () => void {
    const event: Event = { atMs: Math.max(atMs, this.nowMs), order: this.#order++, run };
    const events = this.#events;
    // A binary heap by time, then by the order of scheduling.
    let index = events.length;
    events.push(event);
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = events[parent];
      if (above === undefined || !isBefore(event, above)) break;
      events[index] = above;
      index = parent;
    }
    events[index] = event;
    return () => {
      event.run = null;
    };
  }

  after(delayMs: number, run: () => void): () => void {
    return this.at(this.nowMs + delayMs, run);
  }

  async runUntil(endMs: number): Promise<void> {
    for (let event = this.#events[0]; event !== undefined && event.atMs <= endMs; event = this.#events[0]) {
      this.#pop();
      if (event.run === null) continue;
      this.nowMs = event.atMs;
      this.eventCount += 1;
      event.run();
      await settled();
      if (this.eventCount % eventsPerTurn === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    this.nowMs = endMs;
  }

  #pop(): void {
    const events = this.#events;
    const last = events.pop();
    if (last === undefined || events.length === 0) return;
    let index = 0;
    for (;;) {
      const left = 2 * index + 1;
      let child = events[left];
      const right = events[left + 1];
      let childIndex = left;
      if (child !== undefined && right !== undefined && isBefore(right, child)) {
        child = right;
        childIndex = left + 1;
      }
      if (child === undefined || !isBefore(child, last)) break;
      events[index] = child;
      index = childIndex;
    }
    events[index] = last;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/** Every promise that can go on has gone on: a tick comes when no microtask is left. */
function settled(): Promise<void> {
  return new Promise((resolve) => process.nextTick(resolve));
}

export const wallStartMs = Date.UTC(2026, 0, 1);

/** A machine with one process, clocks of its own, and a generation for each life of the process. */
export class Machine {
  readonly name: string;
  readonly world: World;
  /** Of both clocks, against true time. */
  readonly rate: number;
  isUp = false;
  /** True time of resuming; the process stands still until then. */
  #pausedUntilMs = 0;
  #generation = 0;
  #wallOffsetMs: number;
  /** Time that the monotonic clock did not count. */
  #suspendedMs = 0;
  #backlog: (() => void)[] = [];
  #boot: () => void = () => {};
  /** Counts down the calls of the process until it crashes in one. */
  #crashIn: { calls: number; hasEffect: boolean; downMs: number } | null = null;

  constructor(world: World, name: string, random: Random) {
    this.world = world;
    this.name = name;
    this.rate = random.between(0.9951, 1.0049);
    this.#wallOffsetMs = random.between(-20, 20);
  }

  get generation(): number {
    return this.#generation;
  }

  get isPaused(): boolean {
    return this.world.nowMs < this.#pausedUntilMs;
  }

  /** Clocks and timers of this life of the process: after a crash, nothing of it happens any more. */
  clock(): Clock {
    const generation = this.#generation;
    const now = () => ({
      monotonicMs: (this.world.nowMs - this.#suspendedMs) * this.rate,
      wallMs: wallStartMs + this.world.nowMs * this.rate + this.#wallOffsetMs,
    });
    const setTimer: Clock['setTimer'] = (callback, delayMs) => {
      let isCancelled = false;
      const takeBack = this.world.after(Math.max(0, delayMs) / this.rate, () =>
        this.execute(generation, () => {
          if (!isCancelled) callback();
        }),
      );
      return {
        cancel: () => {
          isCancelled = true;
          takeBack();
        },
      };
    };
    return { now, setTimer, sleep: sleepBy(setTimer) };
  }

  /** Runs something in a life of the process: now, when it goes on, or never when that life is over. */
  execute(generation: number, run: () => void): void {
    if (generation !== this.#generation || !this.isUp) return;
    if (this.isPaused) this.#backlog.push(() => this.execute(generation, run));
    else run();
  }

  start(boot: () => void): void {
    this.#boot = boot;
    this.#begin();
  }

  #begin(): void {
    this.isUp = true;
    this.#generation += 1;
    this.#boot();
  }

  crash(downMs: number): void {
    if (!this.isUp) return;
    this.isUp = false;
    this.#generation += 1;
    this.#backlog = [];
    this.#pausedUntilMs = 0;
    this.#crashIn = null;
    if (Number.isFinite(downMs)) this.world.after(downMs, () => this.restart());
  }

  restart(): void {
    if (!this.isUp) this.#begin();
  }

  /** SIGSTOP; a suspended machine stops its monotonic clock as well. */
  pause(forMs: number, isSuspended = false): void {
    if (!this.isUp || this.isPaused) return;
    this.#pausedUntilMs = this.world.nowMs + forMs;
    this.world.after(forMs, () => {
      if (isSuspended) this.#suspendedMs += forMs;
      for (const run of this.#backlog.splice(0)) this.world.after(0, run);
    });
  }

  jumpWall(byMs: number): void {
    this.#wallOffsetMs += byMs;
  }

  /** Crashes in one of the next calls to another machine: before it has an effect, or after, not knowing of it. */
  crashInCall(calls: number, hasEffect: boolean, downMs: number): void {
    this.#crashIn = { calls, hasEffect, downMs };
  }

  /** To be asked at each call: whether the process crashes before it, or right after it had its effect. */
  fate(): 'lives' | 'crashes-before' | 'crashes-after' {
    if (this.#crashIn === null || this.#crashIn.calls-- > 0) return 'lives';
    return this.#crashIn.hasEffect ? 'crashes-after' : 'crashes-before';
  }

  get crashDownMs(): number {
    return this.#crashIn?.downMs ?? 500;
  }
}

/** A number: so many milliseconds later than usual. */
export type Link = 'cut' | 'black-hole' | 'slow' | 'lossy' | number;

/** What lies between machines. Every direction of every pair fails by itself. */
export class Network {
  readonly #world: World;
  readonly #links = new Map<string, Link>();
  #onAnswer: { from: string; to: readonly string[]; run: () => void } | null = null;

  constructor(world: World) {
    this.#world = world;
  }

  set(from: string, to: string, link: Link | null): void {
    if (link === null) this.#links.delete(`${from}>${to}`);
    else this.#links.set(`${from}>${to}`, link);
  }

  heal(): void {
    this.#links.clear();
  }

  /** Something to happen as soon as one of them has answered the next call: the answer is on its way. */
  onNextAnswer(from: string, to: readonly string[], run: () => void): void {
    this.#onAnswer = { from, to, run };
  }

  /** The delay of a message, or null when it is lost. */
  #delay(from: Machine, to: Machine): number | null {
    const { random } = this.#world;
    const link = this.#links.get(`${from.name}>${to.name}`);
    const usualMs = 0.1 + random.next() ** 4 * 5;
    if (link === 'cut' || link === 'black-hole') return null;
    if (link === 'lossy' && random.chance(0.3)) return random.chance(0.5) ? null : usualMs + 200;
    if (typeof link === 'number') return usualMs + link;
    return link === 'slow' ? usualMs + 200 : usualMs;
  }

  /** One message without an answer; it may come twice, and later than one sent after it. */
  send(from: Machine, to: Machine, deliver: () => void): void {
    const { generation } = to;
    const copies = this.#world.random.chance(0.02) ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1) {
      const delayMs = this.#delay(from, to);
      if (delayMs !== null) this.#world.after(delayMs, () => to.execute(generation, deliver));
    }
  }

  /**
   * A call with an answer. Rejects when the callee is down, the connection is cut, or after `timeoutMs` of the caller's
   * time; then it may have had its effect.
   */
  call<T>(
    from: Machine,
    to: Machine,
    timeoutMs: number,
    handle: () => T | Promise<T>,
    onFailure: (why: string) => Error = (why) => new Error(`${to.name}: ${why}`),
  ): Promise<T> {
    const { generation } = from;
    const fate = from.fate();
    if (fate === 'crashes-before') {
      from.crash(from.crashDownMs);
      return new Promise(() => {});
    }
    return new Promise<T>((resolve, reject) => {
      let isSettled = false;
      const settle = (how: () => void) => {
        if (!isSettled) from.execute(generation, how);
        isSettled = true;
        forget();
      };
      const fail = (why: string) => settle(() => reject(onFailure(why)));
      const forget = this.#world.after(timeoutMs / from.rate, () => fail('no answer in time'));
      const delayMs = this.#delay(from, to);
      if (delayMs === null) {
        if (this.#links.get(`${from.name}>${to.name}`) === 'cut')
          this.#world.after(1, () => fail('connection refused'));
        return;
      }
      this.#world.after(delayMs, () => {
        if (!to.isUp) return void this.#world.after(0.2, () => fail('connection refused'));
        const answering = to.generation;
        to.execute(answering, () => {
          if (fate === 'crashes-after') from.crash(from.crashDownMs);
          const answer = (how: () => void) =>
            to.execute(answering, () => {
              const backMs = this.#delay(to, from);
              if (backMs !== null) this.#world.after(backMs, () => settle(how));
              const expected = this.#onAnswer;
              if (expected === null || expected.from !== from.name || !expected.to.includes(to.name)) return;
              this.#onAnswer = null;
              expected.run();
            });
          const onResult = (result: T) => answer(() => resolve(result));
          const onError = (error: unknown) => answer(() => reject(error));
          try {
            const result = handle();
            if (result instanceof Promise) result.then(onResult, onError);
            else onResult(result);
          } catch (error) {
            onError(error);
          }
        });
      });
    });
  }
}
