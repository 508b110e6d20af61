import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { partsSuite } from '../parts/index.ts';
import { callEverywhere, untilEverywhere, withKey, withToken } from '../system/caller.ts';
import { startIssuer } from '../system/issuer.ts';
import { until } from '../system/service-process.ts';
import { fullChain, type System, type SystemOptions, startSystem } from '../system/system.ts';

const deployments: Record<string, SystemOptions> = {
  'TTL only (no Kafka, no Redis)': { gateways: 2, kafka: false, redis: false, triggers: [], envoy: false },
  'Redis only (the relay reads the change log)': {
    gateways: 2,
    kafka: false,
    redis: true,
    triggers: ['redis-pubsub'],
    envoy: false,
  },
  'the full chain': { ...fullChain, envoy: false },
};

await partsSuite('deployments', ['postgres', 'kafka', 'redis'], (parts) => {
  for (const [name, options] of Object.entries(deployments)) {
    describe(name, () => {
      let system: System;
      before(async () => {
        system = await startSystem(parts, options);
      });
      after(() => system?.[Symbol.asyncDispose]());

      it('takes both credential kinds in, and a revocation stops them everywhere within a second', async () => {
        const { admin } = system;
        await using issuer = await startIssuer();
        const { key, keyId, tenantId } = await admin.tenantFixture();
        await admin.createProvider(tenantId, { issuer: issuer.issuer, audiences: ['api'] });
        const token = await issuer.sign({ sid: 's' });
        await untilEverywhere(system, withKey(key), 200, 1000);
        await untilEverywhere(system, withToken(token), 200, 1000);
        await admin.revokeKey(keyId);
        console.log(`  ${name}: ${(await untilEverywhere(system, withKey(key), 401, 1000)).toFixed(0)} ms`);
        assert.deepEqual(await callEverywhere(system, withToken(token)), [200, 200]);
        await admin.call('POST', '/v1/sessions/revoke', { issuer: issuer.issuer, sid: 's' });
        await untilEverywhere(system, withToken(token), 401, 1000);
      });

      it('hears signals exactly when it has a trigger', async () => {
        const { userId } = await system.admin.tenantFixture();
        await system.admin.disableUser(userId);
        // Of one change alone, a watermark may bring it first.
        const heardOfAnother = async () => {
          await system.admin.enableUser(userId);
          await system.admin.disableUser(userId);
          return heard();
        };
        const heard = async () =>
          (await (await fetch(system.edges[0]?.process.metricsUrl ?? '')).text()).includes('result="extended"');
        if (options.triggers.length > 0) await until('a signal was heard', 10_000, heardOfAnother);
        else assert.equal(await heard(), false);
      });
    });
  }
});
