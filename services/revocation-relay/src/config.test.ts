import assert from 'node:assert/strict';
import { it } from 'node:test';
import { ConfigError } from '@token-gateway/platform';
import { loadRelayConfig } from './config.ts';

it('without brokers the relay reads from identity, and without Redis it does not start', () => {
  const config = loadRelayConfig({ TG_REDIS_URL: 'redis://:password@redis:6379', TG_IDENTITY_ADDRESSES: 'a:1,b:2' });
  assert.equal(config.kafkaBrokers, undefined);
  assert.deepEqual(config.identityAddresses, ['a:1', 'b:2']);
  assert.ok(!JSON.stringify(config).includes('password'));
  assert.throws(() => loadRelayConfig({ TG_KAFKA_BROKERS: 'k:9092' }), ConfigError);
});
