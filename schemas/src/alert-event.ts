/**
 * The alert of an observer: a gateway accepted a credential later than is promised after its revocation. CloudEvents
 * 1.0, structured JSON.
 * @module
 */
import { type Static, Type } from 'typebox';

const strict = { additionalProperties: false } as const;
const Moment = Type.String({ format: 'date-time' });

export const AlertEventSchema = Type.Object(
  {
    specversion: Type.Literal('1.0'),
    id: Type.String({ description: '<epoch>:<seq>:<gateway>; one for each revocation and gateway.' }),
    source: Type.Literal('/token-gateway/observer'),
    type: Type.Literal('tg.revocation.overdue'),
    subject: Type.String({ description: 'What was revoked: key:<id> of the canary.' }),
    time: Moment,
    datacontenttype: Type.Literal('application/json'),
    data: Type.Object(
      {
        gateway: Type.String({ description: 'Its address in the configuration of the observer.' }),
        epoch: Type.Integer({ minimum: 1 }),
        seq: Type.Integer({ minimum: 1 }),
        answeredAt: Type.String({ format: 'date-time', description: 'When the revocation was answered.' }),
        askedAt: Type.String({ format: 'date-time', description: 'When the request began that was accepted.' }),
        boundMs: Type.Number({ minimum: 0, description: 'What is promised: D of the tenant.' }),
        overdueMs: Type.Number({ minimum: 0, description: 'By how much it was later than that.' }),
      },
      strict,
    ),
  },
  { $id: 'AlertEvent', ...strict },
);
export type AlertEvent = Static<typeof AlertEventSchema>;

export const alertsTopic = 'revocation.alerts.v1';
