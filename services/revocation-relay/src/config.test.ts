import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { it } from 'node:test';
import { ConfigError, createApiKey } from '@token-gateway/platform';
import { loadObserverConfig, loadRelayConfig } from './config.ts';

it('without brokers the relay reads from identity, and without Redis it does not start', () => {
  const config = loadRelayConfig({ TG_REDIS_URL: 'redis://:password@redis:6379', TG_IDENTITY_ADDRESSES: 'a:1,b:2' });
  assert.equal(config.kafkaBrokers, undefined);
  assert.deepEqual(config.identityAddresses, ['a:1', 'b:2']);
  assert.ok(!JSON.stringify(config).includes('password'));
  assert.throws(() => loadRelayConfig({ TG_KAFKA_BROKERS: 'k:9092' }), ConfigError);
});

it('the relay observes when it is told how, and not by half', () => {
  const relay = { TG_REDIS_URL: 'redis://redis:6379' };
  const { key } = createApiKey(randomBytes, Date.now());
  const observer = {
    TG_OBSERVER_GATEWAYS: 'gateway:9001, https://edge.example/canary',
    TG_OBSERVER_ADMIN_KEY: key,
    TG_OBSERVER_USER: 'usr_1',
  };
  assert.equal(loadRelayConfig(relay).observer, null);
  const config = loadRelayConfig({ ...relay, ...observer });
  assert.deepEqual(config.observer?.gateways, ['gateway:9001', 'https://edge.example/canary']);
  assert.ok(!JSON.stringify(config).includes(key));
  assert.equal(loadObserverConfig(observer).observer.intervalSeconds, 10);
  for (const name of Object.keys(observer)) {
    const half = { ...observer, [name]: '' };
    assert.throws(() => loadRelayConfig({ ...relay, ...half }), ConfigError);
    assert.throws(() => loadObserverConfig(half), ConfigError);
  }
  for (const gateways of ['gateway', 'ftp://x', 'gateway:9001/x']) {
    assert.throws(() => loadObserverConfig({ ...observer, TG_OBSERVER_GATEWAYS: gateways }), ConfigError);
  }
});
