import {
  alertsTopic,
  auditTopic,
  changesTopic,
  headsTopic,
  heartbeatsTopic,
  noticesTopic,
  receiptsTopic,
} from '../src/index.ts';

/** The AsyncAPI 3 document; its payloads are the generated JSON Schemas beside it. */
export function asyncApi(): object {
  const message = (name: string, file: string, summary: string): object => ({
    name,
    summary,
    contentType: 'application/json',
    payload: {
      schemaFormat: 'application/schema+json;version=draft-2020-12',
      schema: { $ref: `./events/${file}.schema.json` },
    },
  });
  const channel = (address: string, description: string, name: string): object => ({
    address,
    description,
    messages: { [name]: { $ref: `#/components/messages/${name}` } },
  });
  const operation = (action: 'send' | 'receive', name: string, summary: string): object => ({
    action,
    channel: { $ref: `#/channels/${name}` },
    summary,
  });
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'Token gateway events',
      version: '1',
      description:
        'Changes of the identity service. Delivery is at least once and in order of `data.seq`; consumers drop an `id` they have seen.',
      license: { name: 'Apache-2.0' },
    },
    channels: {
      changes: channel(changesTopic, 'Kafka, one partition, in the order of commits.', 'ChangeEvent'),
      heartbeats: channel(heartbeatsTopic, 'Kafka; for metrics and alerts only.', 'Heartbeat'),
      heads: channel(headsTopic, 'Kafka; for auditors, to be kept for good.', 'LogHead'),
      receipts: channel(receiptsTopic, 'Kafka; at least once, in no order.', 'ReceiptEvent'),
      notices: channel(noticesTopic, 'Kafka; at least once.', 'KeyExpiringEvent'),
      alerts: channel(alertsTopic, 'Kafka; should stay empty.', 'AlertEvent'),
      audit: channel(auditTopic, 'Kafka, several partitions, keyed by tenant; at least once.', 'AuditEvent'),
    },
    operations: {
      publishChanges: operation('send', 'changes', 'identity, after each commit'),
      publishHeartbeats: operation('send', 'heartbeats', 'identity, every few seconds'),
      publishHeads: operation('send', 'heads', 'identity, every minute and every hundred changes'),
      publishReceipts: operation('send', 'receipts', 'identity, as gateways report'),
      publishNotices: operation('send', 'notices', 'identity, days before the end of an API key'),
      publishAlerts: operation('send', 'alerts', 'an observer, when a gateway accepts what was revoked'),
      publishAudit: operation('send', 'audit', 'auth server, identity and gateways, within a second'),
      readChanges: operation('receive', 'changes', 'revocation-relay, and whoever wants to know'),
      readHeartbeats: operation('receive', 'heartbeats', 'revocation-relay'),
    },
    components: {
      messages: {
        ChangeEvent: message('ChangeEvent', 'change-event', 'One row of the change log (CloudEvents 1.0, structured).'),
        Heartbeat: message('Heartbeat', 'heartbeat', 'Shows how far behind the chain of consumers is.'),
        LogHead: message('LogHead', 'log-head', 'The newest place in the change log and its hash chain.'),
        ReceiptEvent: message('ReceiptEvent', 'receipt-event', 'Since when changes are in force at a gateway.'),
        KeyExpiringEvent: message('KeyExpiringEvent', 'key-expiring-event', 'An API key will end soon.'),
        AlertEvent: message('AlertEvent', 'alert-event', 'A gateway accepted a revoked credential after D.'),
        AuditEvent: message(
          'AuditEvent',
          'audit-event',
          'An exchange, a refusal, an administrative call, or a loss of such.',
        ),
      },
    },
  };
}
