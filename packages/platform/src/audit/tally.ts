import type { Clock, Timer } from '../clock/port.ts';
import type { AuditRecord, AuditTrail } from './port.ts';

type TalliedOf<Of> = Of extends { readonly type: infer Type; readonly source: infer Source; readonly data: infer Data }
  ? Data extends { readonly count: number; readonly since: string }
    ? { readonly type: Type; readonly source: Source; readonly data: Omit<Data, 'count' | 'since'> }
    : never
  : never;

/** An event that may stand for several alike. */
export type TalliedRecord = TalliedOf<AuditRecord>;

export interface AuditTallyDeps {
  readonly trail: Pick<AuditTrail, 'record'>;
  readonly clock: Clock;
}

interface Group {
  readonly record: TalliedRecord;
  readonly sinceMs: number;
  lastMs: number;
  count: number;
}

const intervalMs = 1000;
/** Told apart within an interval; the rest goes together. */
const groupsMax = 128;

/** What anybody may cause as often as they like: alike within a second, it is one event with a count. */
export class AuditTally {
  readonly #deps: AuditTallyDeps;
  readonly #groups = new Map<string, Group>();
  readonly #keys = new WeakMap<TalliedRecord, string>();
  #timer: Timer | null = null;

  constructor(deps: AuditTallyDeps) {
    this.#deps = deps;
  }

  /**
   * `rest` says the same with no more than a few values in all; it is what counts where too many are told apart already. Where
   * it is the record itself, the same object every time, nothing is made of it.
   */
  note(record: TalliedRecord, rest: TalliedRecord): void {
    const nowMs = this.#deps.clock.now().wallMs;
    const isBare = record === rest;
    const group =
      (isBare ? null : this.#groupOf(JSON.stringify(record), record, nowMs, groupsMax)) ??
      this.#groupOf(isBare ? this.#keyOf(rest) : JSON.stringify(rest), rest, nowMs, Number.POSITIVE_INFINITY);
    if (group === null) return;
    group.count += 1;
    group.lastMs = nowMs;
    this.#timer ??= this.#deps.clock.setTimer(() => this.flush(), intervalMs);
  }

  /** Records what was counted until now. */
  flush(): void {
    this.#timer?.cancel();
    this.#timer = null;
    const groups = [...this.#groups.values()];
    this.#groups.clear();
    for (const { record, sinceMs, lastMs, count } of groups) {
      const data = { ...record.data, count, since: new Date(sinceMs).toISOString() };
      this.#deps.trail.record({ ...record, data, timeMs: lastMs } as AuditRecord);
    }
  }

  #keyOf(record: TalliedRecord): string {
    const known = this.#keys.get(record);
    if (known !== undefined) return known;
    const key = JSON.stringify(record);
    this.#keys.set(record, key);
    return key;
  }

  #groupOf(key: string, record: TalliedRecord, nowMs: number, max: number): Group | null {
    const known = this.#groups.get(key);
    if (known !== undefined || this.#groups.size >= max) return known ?? null;
    const group = { record, sinceMs: nowMs, lastMs: nowMs, count: 0 };
    this.#groups.set(key, group);
    return group;
  }
}
