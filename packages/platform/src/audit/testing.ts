import { AuditEventSchema } from '@token-gateway/schemas';
import { Compile } from 'typebox/compile';

const AuditEvents = Compile(AuditEventSchema);

export function isAuditEvent(value: unknown): boolean {
  return AuditEvents.Check(value);
}
