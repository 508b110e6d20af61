import { type Change, formatPosition, fromChangeEvent } from '@token-gateway/revocation';
import { ChangeEventSchema, type Heartbeat, HeartbeatSchema } from '@token-gateway/schemas';
import { Compile } from 'typebox/compile';

const changeEvent = Compile(ChangeEventSchema);
const heartbeat = Compile(HeartbeatSchema);

/** The change a record of the changes topic holds; null when it is none. */
export function readChange(value: string): Change | null {
  const event = readJson(value);
  return changeEvent.Check(event) && event.id === formatPosition(event.data) ? fromChangeEvent(event) : null;
}

/** The heartbeat a record of the heartbeats topic holds; null when it is none. */
export function readHeartbeat(value: string): Heartbeat | null {
  const event = readJson(value);
  return heartbeat.Check(event) ? event : null;
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * What a change says of the end of an API key, if anything: a moment of the wall clock, or null when none is awaited any
 * more. Of a rotation, the end is that of the old key.
 */
export function keyExpiriesOf(change: Change): [keyId: string, expiresAtMs: number | null][] {
  const { keyId, expiresAt } = change.details ?? {};
  if (typeof keyId !== 'string') return [];
  if (change.type === 'tg.key.revoked') return [[keyId, null]];
  if (!change.type.startsWith('tg.key.') || typeof expiresAt !== 'string') return [];
  const expiresAtMs = Date.parse(expiresAt);
  return Number.isNaN(expiresAtMs) ? [] : [[keyId, expiresAtMs]];
}
