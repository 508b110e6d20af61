/**
 * The audit event: who was let in, who was not, and who administered what. CloudEvents 1.0, structured JSON. No member takes
 * free text of a caller: ids are in the form in which they are made here, and everything else is from a list.
 * @module
 */
import { type Static, type TObject, type TProperties, Type } from 'typebox';

const strict = { additionalProperties: false } as const;
const Moment = Type.String({ format: 'date-time' });
const Id = Type.String({ pattern: '^([a-z]{3}_)?[0-9A-Za-z]{20}$' });
const Code = Type.String({ pattern: '^[a-z_]{1,64}$', description: 'A code of docs/errors.md.' });

/** Of what a credential stands for; each is absent where it is not known. */
const identities = {
  tenantId: Type.Optional(Id),
  userId: Type.Optional(Id),
  keyId: Type.Optional(Id),
  providerId: Type.Optional(Id),
};

const CredentialKind = Type.Enum(['api-key', 'jwt', 'client']);

/** Of an event that stands for several alike. */
const times = {
  count: Type.Integer({ minimum: 1, description: 'How many alike it stands for.' }),
  since: Type.String({ format: 'date-time', description: 'When the first of them was; `time` is when the last was.' }),
};

const ExchangeGranted = Type.Object(
  {
    ...identities,
    clientId: Type.String({ description: 'The authenticated client that asked.' }),
    credentialKind: CredentialKind,
    audience: Type.String({ description: 'Of the internal token.' }),
    actors: Type.Optional(
      Type.Array(Type.String(), {
        maxItems: 100,
        description: 'Clients that act for the user, the present one first; absent where nobody does.',
      }),
    ),
    scopes: Type.Array(Type.String(), { maxItems: 100, description: 'Of the internal token; the first hundred.' }),
    epoch: Type.Integer({ minimum: 1, description: 'With seq: the place in the change log it was decided at.' }),
    seq: Type.Integer({ minimum: 0 }),
  },
  strict,
);

const ExchangeRefused = Type.Object(
  { ...identities, clientId: ExchangeGranted.properties.clientId, credentialKind: CredentialKind, code: Code },
  strict,
);

const Introspection = Type.Object(
  {
    ...identities,
    clientId: ExchangeGranted.properties.clientId,
    credentialKind: CredentialKind,
    isActive: Type.Boolean(),
    code: Type.Optional(Code),
  },
  strict,
);

const Revocation = Type.Object(
  {
    ...identities,
    clientId: ExchangeGranted.properties.clientId,
    credentialKind: CredentialKind,
    isFound: Type.Boolean({ description: 'False: there was nothing to end.' }),
  },
  strict,
);

const SignalKind = Type.Enum(['back-channel-logout', 'security-event']);

const SignalReceived = Type.Object(
  {
    tenantId: Type.Optional(Id),
    userId: Type.Optional(Id),
    providerId: Type.Optional(Id),
    kind: SignalKind,
    event: Type.String({ pattern: '^[a-z-]{1,64}$', description: 'What happened, by its name in the standard.' }),
    outcome: Type.Enum(['applied', 'nothing_to_do', 'repeated', 'too_old', 'provider_unknown'], {
      description:
        'What became of it: a change; nothing, since it ends nothing here, was received before, is too old, or its ' +
        'provider is gone.',
    }),
  },
  strict,
);

const SignalRefused = Type.Object({ kind: SignalKind, code: Code, ...times }, strict);

const ClientRefused = Type.Object(
  {
    clientId: Type.Optional(
      Type.String({
        description:
          'A registered client: whose name was used, where code is invalid_client; absent where there is none.',
      }),
    ),
    endpoint: Type.Enum(['token', 'introspection', 'revocation']),
    code: Type.Enum(['invalid_client', 'unauthorized_client']),
    ...times,
  },
  strict,
);

const DecisionDenied = Type.Object(
  {
    ...identities,
    code: Code,
    isUndecided: Type.Boolean({ description: 'True: answered 503, since nothing could be decided.' }),
    ...times,
  },
  strict,
);

const AdminCall = Type.Object(
  {
    actor: Type.Optional(Type.String({ description: 'user:<id> or key:<id>; absent where nobody was identified.' })),
    actorTenantId: Type.Optional(Id),
    tenantId: Type.Optional(Id),
    method: Type.String({ pattern: '^[A-Z-]{1,20}$' }),
    route: Type.String({ description: 'The template of the path, such as /v1/users/:id; * where there is none.' }),
    targets: Type.Record(Type.String(), Type.String(), {
      description: 'The ids in the path by their names in the template; createdId is of what the call made.',
    }),
    status: Type.Integer({ minimum: 100, maximum: 599 }),
    code: Type.Optional(Code),
    requestId: Type.Optional(
      Type.String({ pattern: '^[0-9a-f-]{36}$', description: 'x-request-id, if it is a UUID.' }),
    ),
    ...times,
  },
  strict,
);

const Lost = Type.Object({ ...times }, strict);

const sources = ['/token-gateway/auth-server', '/token-gateway/identity', '/token-gateway/gateway'] as const;

function event<const Name extends string, Data extends TProperties>(type: Name, data: TObject<Data>) {
  return Type.Object(
    {
      specversion: Type.Literal('1.0'),
      id: Type.String({
        pattern: '^[0-9A-Za-z]{20}:[0-9]+$',
        description: '<process>:<n>: n counts the events of a process from 1 without gaps; drop an id you have seen.',
      }),
      source: Type.Enum(sources),
      type: Type.Literal(type),
      time: Moment,
      datacontenttype: Type.Literal('application/json'),
      data,
    },
    strict,
  );
}

export const AuditEventSchema = Type.Union(
  [
    event('tg.audit.exchange.granted', ExchangeGranted),
    event('tg.audit.exchange.refused', ExchangeRefused),
    event('tg.audit.introspection', Introspection),
    event('tg.audit.revocation', Revocation),
    event('tg.audit.client.refused', ClientRefused),
    event('tg.audit.signal.received', SignalReceived),
    event('tg.audit.signal.refused', SignalRefused),
    event('tg.audit.decision.denied', DecisionDenied),
    event('tg.audit.admin.call', AdminCall),
    event('tg.audit.lost', Lost),
  ],
  { $id: 'AuditEvent' },
);
export type AuditEvent = Static<typeof AuditEventSchema>;

/** In the order of docs/events.md. */
export const auditTypes = AuditEventSchema.anyOf.map(({ properties }) => properties.type.const);

export const auditTopic = 'audit.v1';
/** With which it is made where it is absent; the key of a record is the tenant. */
export const auditPartitions = 6;
