/** A place in the change log: every decision is read at one. */
export interface Position {
  readonly epoch: number;
  readonly seq: number;
}

/** Negative, zero or positive as `a` is before, at or after `b`: epochs first, since a later one replaces all before. */
export function comparePositions(a: Position, b: Position): number {
  return a.epoch - b.epoch || a.seq - b.seq;
}

/** `<epoch>:<seq>`, as in the token's `rev` claim and an event's id. */
export function formatPosition(position: Position): string {
  return `${position.epoch}:${position.seq}`;
}
