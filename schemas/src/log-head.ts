/**
 * A head of the change log as it is published for auditors: whoever kept it can tell later whether the history up to
 * there is still the same.
 * @module
 */
import { type Static, Type } from 'typebox';

export const LogHeadSchema = Type.Object(
  {
    epoch: Type.Integer({ minimum: 1 }),
    seq: Type.Integer({ minimum: 0, description: 'The newest sequence when it was read.' }),
    chain: Type.String({ pattern: '^[0-9a-f]{64}$', description: 'SHA-256 over every change up to seq.' }),
    at: Type.String({ format: 'date-time' }),
  },
  { $id: 'LogHead', additionalProperties: false },
);
export type LogHead = Static<typeof LogHeadSchema>;

/** To be kept for as long as the history is to be provable. */
export const headsTopic = 'identity.heads.v1';
