/**
 * A change, its canonical text and the hash chain over it.
 *
 *     chain(n) = SHA-256( chain(n-1) || int64be(epoch) || int64be(seq) || utf8(payload) )
 *
 * `payload` is the canonical JSON (RFC 8785) of {actor, at, details, reason, subjects, type}. The chain before the
 * first change is 32 zero bytes. Whoever holds two changes and all between can check that none was altered.
 */
import { hash } from 'node:crypto';
import type { Change, ChangeEvent } from '@token-gateway/schemas';
import { formatPosition, type Position } from './position.ts';
import { allSubject, type Subject } from './subject.ts';

export type { Change };

/** What a change says, before it has a place in the log. */
export type ChangeContent = Omit<Change, 'epoch' | 'seq' | 'chain'>;

/** A change as it is stored or received. */
export interface ChangeRow extends Position {
  /** 64 hex digits. */
  readonly chain: string;
  /** The canonical text that the chain covers. */
  readonly payload: string;
}

/** The chain value before the first change. */
export const genesisChain = '0'.repeat(64);

/** Canonical JSON of the kind of values a change holds: sorted keys, no white space, absent members left out. */
function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (value !== null && typeof value === 'object') {
    const members = Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`);
    return `{${members.join(',')}}`;
  }
  return JSON.stringify(value);
}

/** The text the chain covers. */
export function changePayload(content: ChangeContent): string {
  const { actor, at, details, reason, subjects, type } = content;
  // Sorted as it stands, and most changes have no details, whose members are to be sorted.
  if (details === undefined) return JSON.stringify({ actor, at, reason, subjects, type });
  return canonicalJson({ actor, at, details, reason, subjects, type });
}

/** The chain value after a change; `previous` and the result are 64 hex digits. */
export function nextChain(previous: string, epoch: number, seq: number, payload: string): string {
  const link = Buffer.alloc(32 + 16 + Buffer.byteLength(payload));
  link.write(previous, 0, 'hex');
  link.writeBigInt64BE(BigInt(epoch), 32);
  link.writeBigInt64BE(BigInt(seq), 40);
  link.write(payload, 48, 'utf8');
  return hash('sha256', link, 'hex');
}

/** The chain value after `change` if it follows `previous`: computed, never the one the change carries. */
export function chainAfter(previous: string, change: Change): string {
  return nextChain(previous, change.epoch, change.seq, changePayload(change));
}

/** A change from a stored or received row. The payload is trusted to be canonical only as far as the chain agrees. */
export function changeFromRow(row: ChangeRow): Change {
  const content = JSON.parse(row.payload) as ChangeContent;
  return { ...content, epoch: row.epoch, seq: row.seq, chain: row.chain };
}

/** The subjects a change adds tombstones for; none in the change means all. */
export function subjectsOf(change: Pick<Change, 'subjects'>): readonly Subject[] {
  return change.subjects.length === 0 ? [allSubject] : change.subjects;
}

/** The event of a change: CloudEvents 1.0, structured JSON. */
export function toChangeEvent(change: Change): ChangeEvent {
  const { type, at, ...data } = change;
  return {
    specversion: '1.0',
    id: formatPosition(change),
    source: '/token-gateway/identity',
    type,
    subject: change.subjects[0] ?? allSubject,
    time: at,
    datacontenttype: 'application/json',
    data,
  };
}

/** The change an event carries. Validate the event against its schema first. */
export function fromChangeEvent(event: ChangeEvent): Change {
  return { ...event.data, type: event.type, at: event.time };
}
