/**
 * The observer, against the embedded system and against a gateway whose view stands still.
 * @module
 */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { promisify } from 'node:util';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { createLifecycle, createMemoryEventLog, type Lifecycle, systemClock } from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { type AlertEvent, alertsTopic } from '@token-gateway/schemas';
import { type AuthorizationServer, AuthorizationService } from '@token-gateway/schemas/ext-authz';
import { type Embedded, startEmbedded } from '../../embedded/src/embedded.ts';
import { loadObserverConfig } from '../../services/revocation-relay/src/config.ts';
import { startObserver } from '../../services/revocation-relay/src/observer/start.ts';
import { freePorts, ServiceProcess, until } from '../system/service-process.ts';

const ports = ['EDGE', 'AUTH_SERVER', 'IDENTITY', 'IDENTITY_GRPC', 'EXT_AUTHZ', 'UPSTREAM', 'DEV_PROVIDER', 'METRICS'];
const boundMs = 500;

/** A gateway that goes on as if nothing was ever revoked. */
async function startFrozenGateway(lifecycle: Lifecycle): Promise<string> {
  const server = new Server();
  const service: AuthorizationServer = {
    check: (_, callback) =>
      callback(null, {
        status: { code: 0, message: '' },
        httpResponse: { $case: 'okResponse', value: { headers: [], headersToRemove: [], responseHeadersToAdd: [] } },
      }),
  };
  server.addService(AuthorizationService, service);
  const bind = promisify(server.bindAsync.bind(server));
  const port = await bind('127.0.0.1:0', ServerCredentials.createInsecure());
  lifecycle.onClose('frozen gateway', async () => server.forceShutdown());
  return `127.0.0.1:${port}`;
}

suite('the observer', { timeout: 120_000 }, () => {
  const telemetry = createSilentTelemetry();
  const lifecycle = createLifecycle(telemetry.logger);
  let embedded: Embedded;
  let gateways: { extAuthz: string; edge: string; frozen: string; away: string };
  let env: Record<string, string>;

  before(async () => {
    const anyPort = Object.fromEntries(ports.map((name) => [`TG_${name}_PORT`, '0']));
    embedded = await startEmbedded(anyPort, { ...telemetry, lifecycle });
    const create = async (path: string, body: object): Promise<{ id: string; key: string }> => {
      const response = await fetch(embedded.urls.identity + path, {
        method: 'POST',
        headers: { authorization: `Token ${embedded.adminKey}`, 'content-type': 'application/json' },
        body: JSON.stringify(body),
      });
      assert.equal(response.status, 201);
      return (await response.json()) as { id: string; key: string };
    };
    const tenant = await create('/v1/tenants', { slug: 'canary', name: 'Canary', policy: { maxStalenessMs: boundMs } });
    const user = await create(`/v1/tenants/${tenant.id}/users`, {});
    const entitlements = ['identity:admin'];
    const admin = await create(`/v1/tenants/${tenant.id}/users`, { entitlements });
    const { key } = await create(`/v1/users/${admin.id}/api-keys`, { name: 'observer', scopes: entitlements });
    const [awayPort] = await freePorts(1);
    gateways = {
      extAuthz: embedded.addresses.extAuthz,
      edge: `${embedded.urls.edge}/canary`,
      frozen: await startFrozenGateway(lifecycle),
      away: `127.0.0.1:${awayPort}`,
    };
    env = {
      TG_OBSERVER_GATEWAYS: Object.values(gateways).join(','),
      TG_OBSERVER_ADMIN_KEY: key,
      TG_OBSERVER_USER: user.id,
      TG_OBSERVER_IDENTITY_URL: embedded.urls.identity,
      TG_OBSERVER_INTERVAL_SECONDS: '1',
    };
  });
  after(() => lifecycle.close());

  test('alone measures each gateway, tells one that is away, and reports one whose view is frozen', async () => {
    const [metricsPort = 0] = await freePorts(1);
    await using observer = new ServiceProcess(
      'observer',
      'services/revocation-relay/src/observer-main.ts',
      env,
      metricsPort,
    );
    await observer.start();
    let metrics = '';
    const metric = (name: string, label: string): number => {
      const line = metrics.split('\n').find((each) => each.startsWith(`${name}{`) && each.includes(label));
      return Number(line?.split(' ').at(-1));
    };
    await until('a round', 60_000, async () => {
      metrics = await (await fetch(observer.metricsUrl)).text();
      return metric('tg_observer_probes_total', 'outcome="violation"') > 0;
    });
    const found = ['revoked', 'violation', 'unreachable', 'not-accepted', 'failed'].map((outcome) =>
      metric('tg_observer_probes_total', `outcome="${outcome}"`),
    );
    assert.deepEqual(found, [2, 1, 1, 0, 0]);
    for (const gateway of [gateways.extAuthz, gateways.edge]) {
      assert.equal(metric('tg_observer_revocation_seconds_count', `gateway="${gateway}"`), 1);
      assert.ok(metric('tg_observer_revocation_seconds_sum', `gateway="${gateway}"`) < boundMs / 1000);
      assert.equal(metric('tg_observer_violations_total', `gateway="${gateway}"`), 0);
    }
    assert.equal(metric('tg_observer_violations_total', `gateway="${gateways.frozen}"`), 1);
    const alerts = observer.output.split('\n').filter((line) => line.includes('"code":"revocation_overdue"'));
    assert.equal(alerts.length, 1);
    assert.doesNotMatch(observer.output, /tgk_\w/);
  });

  test('publishes an alert that says which gateway was late, and by how much', async () => {
    const own = createLifecycle(telemetry.logger);
    const { registry, logger } = createSilentTelemetry();
    const eventLog = createMemoryEventLog({ clock: systemClock });
    const alerted = Promise.withResolvers<AlertEvent>();
    const consumer = await eventLog.consume({
      topic: alertsTopic,
      from: 'oldest',
      onRecords: async ([record]) => {
        alerted.resolve(JSON.parse(record?.value ?? '') as AlertEvent);
      },
    });
    const { observer } = loadObserverConfig({ ...env, TG_OBSERVER_GATEWAYS: gateways.frozen });
    startObserver({ eventLog, clock: systemClock, random: Math.random, logger, registry, lifecycle: own }, observer);
    const { data, subject } = await alerted.promise;
    await own.close();
    await consumer.stop();
    assert.equal(data.gateway, gateways.frozen);
    assert.equal(data.boundMs, boundMs);
    assert.ok(data.overdueMs > 0);
    assert.match(subject, /^key:\w+$/);
  });
});
