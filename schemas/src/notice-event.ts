/**
 * The notice: something will happen that somebody may want to act on. CloudEvents 1.0, structured JSON.
 * @module
 */
import { type Static, Type } from 'typebox';

const strict = { additionalProperties: false } as const;
const Moment = Type.String({ format: 'date-time' });

export const KeyExpiringEventSchema = Type.Object(
  {
    specversion: Type.Literal('1.0'),
    id: Type.String({
      pattern: '^\\w{1,100}:[0-9]+$',
      description: '<key>:<its end in Unix milliseconds>; consumers drop an id they have seen.',
    }),
    source: Type.Literal('/token-gateway/identity'),
    type: Type.Literal('tg.key.expiring'),
    subject: Type.String({ description: 'key:<id>' }),
    time: Moment,
    datacontenttype: Type.Literal('application/json'),
    data: Type.Object(
      {
        keyId: Type.String(),
        tenantId: Type.String(),
        userId: Type.String(),
        name: Type.String(),
        expiresAt: Moment,
        lastUsedAt: Type.Optional(Moment),
      },
      strict,
    ),
  },
  { $id: 'KeyExpiringEvent', ...strict },
);
export type KeyExpiringEvent = Static<typeof KeyExpiringEventSchema>;

/** Nothing is decided by it: a key ends at its end, whether or not somebody was told. */
export const noticesTopic = 'identity.notices.v1';
