import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ConfigError } from '@token-gateway/platform';
import { createCertificateAuthority } from '../../../deploy/certificates.ts';
import { loadGatewayConfig } from './config.ts';

const required = {
  TG_CLIENT_KEY: JSON.stringify({ kty: 'EC', crv: 'P-256', x: 'x', y: 'y', d: 'private-part' }),
  TG_FLEET_SECRET: 'fleet-secret-of-at-least-32-bytes',
};

function problemsOf(env: NodeJS.ProcessEnv): readonly string[] {
  try {
    loadGatewayConfig({ ...required, ...env });
    return [];
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    assert.equal(/private-part|fleet-secret/.test(error.message), false);
    return error.problems;
  }
}

describe('the configuration of the gateway', () => {
  it('names its triggers', () => {
    const env = { ...required, TG_SIGNALS: 'redis-pubsub, watch', TG_REDIS_URL: 'redis://redis' };
    assert.deepEqual(loadGatewayConfig(env).signals, ['redis-pubsub', 'watch']);
    assert.deepEqual(loadGatewayConfig({ ...required, TG_SIGNALS: '' }).signals, []);
  });

  it('is refused with an unknown trigger, and with one of Redis without Redis', () => {
    assert.equal(problemsOf({ TG_SIGNALS: 'watch,gossip' }).length, 1);
    for (const trigger of ['redis-pubsub', 'redis-keyspace'])
      assert.equal(problemsOf({ TG_SIGNALS: trigger }).length, 1);
    assert.deepEqual(problemsOf({ TG_SIGNALS: 'watch' }), []);
  });

  it('is refused with a proxy that nobody asks for here', () => {
    assert.deepEqual(loadGatewayConfig(required).forwardAuth, []);
    const env = { ...required, TG_FORWARD_AUTH: 'nginx, caddy' };
    assert.deepEqual(loadGatewayConfig(env).forwardAuth, ['nginx', 'caddy']);
    assert.equal(problemsOf({ TG_FORWARD_AUTH: 'nginx,apache' }).length, 1);
  });

  it('is refused with replicas of the auth server that have nothing in common, or are no URLs', () => {
    const replicas = 'http://a:8081,http://b:8081';
    assert.equal(problemsOf({ TG_AUTH_SERVER_URL: replicas }).length, 1);
    assert.deepEqual(problemsOf({ TG_AUTH_SERVER_URL: replicas, TG_ISSUER: 'https://issuer.example' }), []);
    assert.equal(problemsOf({ TG_AUTH_SERVER_URL: 'auth-server:8081' }).length, 1);
  });

  it('is refused with authorities of a service that are no certificates, or without TLS', async () => {
    const { certificate } = await createCertificateAuthority('test', Date.now());
    const https = { TG_UPSTREAM_URL: 'https://service' };
    assert.deepEqual(problemsOf({ ...https, TG_UPSTREAM_CA: certificate }), []);
    assert.equal(problemsOf({ ...https, TG_UPSTREAM_CA: '/etc/ca.crt' }).length, 1);
    assert.equal(problemsOf({ TG_UPSTREAM_URL: 'http://service', TG_UPSTREAM_CA: certificate }).length, 1);
  });

  it('is refused with an id that identity would not take', () => {
    assert.deepEqual(problemsOf({ TG_GATEWAY_ID: 'eu-1.gateway_2' }), []);
    for (const id of ['gateway 1', 'a:b', 'x'.repeat(65)]) assert.equal(problemsOf({ TG_GATEWAY_ID: id }).length, 1);
  });

  it('is refused with a count of workers that is none, and with an id that has no room for their numbers', () => {
    assert.equal(loadGatewayConfig(required).workers, 1);
    assert.ok(loadGatewayConfig({ ...required, TG_WORKERS: 'auto' }).workers >= 1);
    for (const workers of ['0', '-1', '1.5', 'all', '257']) assert.equal(problemsOf({ TG_WORKERS: workers }).length, 1);
    const id = { TG_GATEWAY_ID: 'x'.repeat(61) };
    assert.deepEqual(problemsOf(id), []);
    assert.equal(problemsOf({ ...id, TG_WORKERS: '2' }).length, 1);
  });

  it('is refused with a short fleet secret, and with a client key that is none, without showing them', () => {
    assert.equal(problemsOf({ TG_FLEET_SECRET: 'fleet-secret' }).length, 1);
    for (const key of ['private-part', '[]', '{"kty":"EC"}', 'null'])
      assert.equal(problemsOf({ TG_CLIENT_KEY: key }).length, 1);
  });
});
