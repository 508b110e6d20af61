/**
 * The change event: one row of identity's change log as it travels on the topic `identity.changes.v1` and on the
 * Redis channel. CloudEvents 1.0, structured JSON. Types, JSON Schema and AsyncAPI are all derived from this file.
 * @module
 */
import { type Static, Type } from 'typebox';

/** Every kind of change. Add at the end; a name once published keeps its meaning. */
export const changeTypes = [
  'tg.key.created',
  'tg.key.revoked',
  'tg.key.rotated',
  'tg.key.changed',
  'tg.user.created',
  'tg.user.disabled',
  'tg.user.enabled',
  'tg.user.changed',
  'tg.session.revoked',
  'tg.provider.created',
  'tg.provider.changed',
  'tg.provider.disabled',
  'tg.tenant.created',
  'tg.tenant.changed',
  'tg.tenant.suspended',
  'tg.tenant.resumed',
  'tg.signing-key.compromised',
] as const;

const ChangeType = Type.Enum(changeTypes);

const Details = Type.Record(
  Type.String(),
  Type.Union([Type.String(), Type.Integer(), Type.Boolean(), Type.Array(Type.String())]),
  {
    description:
      'Facts beside the subjects, such as tenantId. Never a secret, a hash of an API key, or an e-mail address.',
  },
);

/** A change as the protocol handles it. */
export const ChangeSchema = Type.Object(
  {
    epoch: Type.Integer({ minimum: 1, description: 'Ordered number of a history; a larger one replaces all before.' }),
    seq: Type.Integer({ minimum: 1, description: 'Dense sequence; its order is the order of commits.' }),
    chain: Type.String({ pattern: '^[0-9a-f]{64}$', description: 'SHA-256 over the chain before and this change.' }),
    type: ChangeType,
    subjects: Type.Array(Type.String({ minLength: 1 }), {
      maxItems: 100,
      description: 'What the change is about; none means all.',
    }),
    actor: Type.String({ description: 'Who made it: user:<id>, key:<id>, client:<id>, provider:<id> or system.' }),
    at: Type.String({ format: 'date-time' }),
    reason: Type.Optional(Type.String({ maxLength: 500 })),
    details: Type.Optional(Details),
  },
  { $id: 'Change', additionalProperties: false },
);
export type Change = Static<typeof ChangeSchema>;
export type ChangeType = Change['type'];

/** Its CloudEvents envelope. */
export const ChangeEventSchema = Type.Object(
  {
    specversion: Type.Literal('1.0'),
    id: Type.String({ pattern: '^[0-9]+:[0-9]+$', description: '<epoch>:<seq>; consumers drop an id they have seen.' }),
    source: Type.Literal('/token-gateway/identity'),
    type: ChangeType,
    subject: Type.String({ description: 'The first subject.' }),
    time: Type.String({ format: 'date-time' }),
    datacontenttype: Type.Literal('application/json'),
    data: Type.Omit(ChangeSchema, ['type', 'at']),
  },
  { $id: 'ChangeEvent', additionalProperties: false },
);
export type ChangeEvent = Static<typeof ChangeEventSchema>;

/** Made from a read of the primary database by the publisher, every few seconds; for metrics and alerts only. */
export const HeartbeatSchema = Type.Object(
  {
    epoch: Type.Integer({ minimum: 1 }),
    seq: Type.Integer({ minimum: 0, description: 'The newest sequence when it was made.' }),
    at: Type.String({ format: 'date-time' }),
  },
  { $id: 'Heartbeat', additionalProperties: false },
);
export type Heartbeat = Static<typeof HeartbeatSchema>;

export const changesTopic = 'identity.changes.v1';
/** Apart from the changes, so that the changes topic holds changes only, dense and in order. */
export const heartbeatsTopic = 'identity.heartbeats.v1';
