/**
 * The receipt event: since when changes are in force at one gateway. CloudEvents 1.0, structured JSON.
 * @module
 */
import { type Static, Type } from 'typebox';

const strict = { additionalProperties: false } as const;
const Sequence = Type.Integer({ minimum: 1 });
const Moment = Type.String({ format: 'date-time' });

export const ReceiptEventSchema = Type.Object(
  {
    specversion: Type.Literal('1.0'),
    id: Type.String({
      pattern: '^[\\w.-]{1,64}:[0-9]+:[0-9]+-[0-9]+$',
      description: '<gateway>:<epoch>:<seqFrom>-<seqTo>; consumers drop an id they have seen.',
    }),
    source: Type.Literal('/token-gateway/identity'),
    type: Type.Literal('tg.revocation.effective'),
    subject: Type.String({ description: 'gateway:<id>' }),
    time: Moment,
    datacontenttype: Type.Literal('application/json'),
    data: Type.Object(
      {
        gatewayId: Type.String({ minLength: 1, maxLength: 64 }),
        epoch: Sequence,
        seqFrom: Sequence,
        seqTo: Type.Integer({ minimum: 1, description: 'The receipt is for every change from seqFrom to this one.' }),
        effectiveAt: Type.String({
          format: 'date-time',
          description: 'Since then, at the latest, by the clock of the replica of identity that was told.',
        }),
        reportedAt: Moment,
      },
      strict,
    ),
  },
  { $id: 'ReceiptEvent', ...strict },
);
export type ReceiptEvent = Static<typeof ReceiptEventSchema>;
export type Receipt = ReceiptEvent['data'];

/** For information and audit; nothing is decided by it. */
export const receiptsTopic = 'revocation.receipts.v1';
