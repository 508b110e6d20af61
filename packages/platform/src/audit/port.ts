import type { AuditEvent } from '@token-gateway/schemas';

type RecordOf<Event> = Event extends {
  readonly type: infer Type;
  readonly source: infer Source;
  readonly data: infer Data;
}
  ? {
      readonly type: Exclude<Type, 'tg.audit.lost'>;
      readonly source: Source;
      readonly data: Data;
      /** Absent: now. */
      readonly timeMs?: number;
    }
  : never;

/** What happened, before it has an id and a time. */
export type AuditRecord = Exclude<RecordOf<AuditEvent>, { readonly type: never }>;

/** Where everything that has to be audited is recorded. */
export interface AuditTrail {
  /**
   * Comes before what must not happen without being audited. Throws ServiceError `audit_unavailable` while nothing more can
   * be recorded, if the trail is one that refuses; never call it before what ends access.
   */
  ensureRoom(): void;
  /** At once, without waiting for anything; never throws. What finds no room is lost, and counted. */
  record(record: AuditRecord): void;
  /** Publishes what there is, if it can. */
  close(): Promise<void>;
}

/** For where nothing is audited. */
export const noAuditTrail: AuditTrail = {
  ensureRoom() {},
  record() {},
  async close() {},
};
