import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import {
  createApiKey,
  createMemoryTokenCache,
  type SignalListener,
  type SingleUse,
  type TokenCache,
} from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { hasAllSubjects, providerSubject } from '@token-gateway/revocation';
import { Authority } from './authority.testing.ts';
import { PresentedOnce } from './conditions/presentation.ts';
import { defaultCredentialConfig, findPlainCredential, type GrantKind } from './decision/credential.ts';
import { createGateway, type Gateway, type GatewayConfig } from './gateway.ts';
import { parseRules } from './rules/file.ts';
import { noRules, type RuledDecision, type RuleSet } from './rules/rules.ts';

interface Options {
  readonly tokenCache?: TokenCache | null;
  readonly usedProofs?: SingleUse | null;
  readonly authority?: Authority;
  readonly clock?: ReturnType<typeof createTestClock>;
  readonly config?: Partial<GatewayConfig>;
  readonly notReady?: readonly string[];
  readonly rules?: RuleSet;
}

/** A started gateway on a clock that the test moves. */
async function started(options: Options = {}) {
  const clock = options.clock ?? createTestClock();
  const authority = options.authority ?? new Authority(() => clock.now().wallMs);
  let heard: SignalListener | null = null;
  const telemetry = createSilentTelemetry();
  const gateway = createGateway(
    {
      ...telemetry,
      identity: authority.identity,
      exchange: authority.exchange,
      tokenCache: options.tokenCache ?? null,
      usedProofs: options.usedProofs ?? null,
      signals: [
        {
          name: 'test',
          subscribe(listener) {
            heard = listener;
            return async () => {};
          },
        },
      ],
      clock,
      random: () => 0.5,
      rules: () => options.rules ?? noRules,
    },
    { audience: 'internal', fleetSecret: Buffer.alloc(32, 1), ...options.config },
  );
  gateway.start();
  await clock.advance(0);
  assert.deepEqual(gateway.notReady(), options.notReady ?? []);
  assert.ok(heard !== null);
  const signal: SignalListener = heard;
  return {
    clock,
    authority,
    gateway,
    signal,
    /** A line of what the gateway exports. */
    async exports(line: string): Promise<boolean> {
      return (await telemetry.registry.metrics()).includes(`${line}\n`);
    },
    /** Decides for a request with the key, and moves the clock until it is decided. */
    async ask(key: string): Promise<RuledDecision> {
      return gateway.decide(requestWith({ authorization: [`Token ${key}`] }));
    },
  };
}

function requestWith(headers: Record<string, string[]>) {
  return { method: 'GET', path: '/', header: (name: string) => headers[name] ?? [] };
}

/** What becomes of a request with the key from an address. */
async function askFrom(gateway: Gateway, key: string, sourceAddress: string): Promise<string> {
  return outcomeOf(await gateway.decide({ ...requestWith({ authorization: [`Token ${key}`] }), sourceAddress }));
}

/** Asks with many keys at once that are none. */
async function floodFrom(
  { authority, gateway }: { authority: Authority; gateway: Gateway },
  sourceOf: (at: number) => string,
): Promise<void> {
  const outcomes = await Promise.all(badKeys(authority, 250).map((key, at) => askFrom(gateway, key, sourceOf(at))));
  assert.ok(outcomes.includes('overloaded'));
}

/** By its form a token; the authority under test looks no further. */
function tokenOf(claims: Readonly<Record<string, unknown>>): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'ES256' })}.${part(claims)}.c2ln`;
}

function newKey(): { id: string; key: string } {
  const { keyId, key } = createApiKey(randomBytes, Date.now());
  return { id: keyId, key };
}

/** Keys in the right form that the authority refuses. */
function badKeys(authority: Authority, count: number): string[] {
  return Array.from({ length: count }, () => {
    const { id, key } = newKey();
    authority.disabled.add(id);
    return key;
  });
}

/** An L2 that has nothing; while it is slow, reads of it end when it is told. */
function emptyL2() {
  const slow = Promise.withResolvers<null>();
  const l2 = {
    isSlow: false,
    answer: () => slow.resolve(null),
    tokenCache: {
      ...createMemoryTokenCache({ clock: createTestClock() }),
      get: async (): Promise<null> => (l2.isSlow ? slow.promise : null),
    } satisfies TokenCache,
  };
  return l2;
}

const allowWith = (token: string, kind: GrantKind): RuledDecision => ({
  outcome: 'allow',
  token,
  kind,
  headers: [['authorization', `Bearer ${token}`]],
});
const outcomeOf = (decision: RuledDecision) => ('code' in decision ? decision.code : decision.outcome);

describe('a gateway with quotas', () => {
  const quota = (id: string, requests: number) => ({ subject: `key:${id}`, requests, window_seconds: 60 });

  async function withQuota(options: Options = {}) {
    const system = await started(options);
    const limits = new Map<string, number>();
    system.authority.alter = (result) => {
      const id = result.facts?.subjects[0]?.slice('key:'.length) ?? '';
      const requests = limits.get(id);
      if (result.outcome !== 'granted' || requests === undefined) return result;
      return { ...result, conditions: { quotas: [quota(id, requests)] } };
    };
    return { ...system, limits };
  }

  it('counts hits of every cache and misses alike, and refuses what is beyond, until time has made up for it', async () => {
    const tokenCache = createMemoryTokenCache({ clock: createTestClock() });
    const { authority, ask, gateway, limits, clock, exports } = await withQuota({ tokenCache });
    const { id, key } = newKey();
    limits.set(id, 6);
    const first = await ask(key);
    assert.deepEqual('answerHeaders' in first && first.answerHeaders, [
      ['ratelimit-policy', '"key";q=6;w=60'],
      ['ratelimit', '"key";r=5;t=10'],
    ]);
    for (let count = 1; count < 6; count += 1) assert.equal(outcomeOf(await ask(key)), 'allow');
    const refused = await ask(key);
    assert.deepEqual(refused, {
      outcome: 'deny',
      code: 'quota_exceeded',
      subjects: [`key:${id}`],
      answerHeaders: [
        ['retry-after', '10'],
        ['ratelimit-policy', '"key";q=6;w=60'],
        ['ratelimit', '"key";r=0;t=10'],
      ],
    });
    await clock.advance(10_000);
    assert.equal(outcomeOf(await ask(key)), 'allow');
    assert.equal(outcomeOf(await ask(key)), 'quota_exceeded');
    assert.equal(authority.exchangeCount, 1);
    assert.ok(await exports('tg_gateway_quota_total{outcome="allowed"} 7'));
    assert.ok(await exports('tg_gateway_quota_total{outcome="refused"} 2'));
    await gateway.close();
    // Another that has it from L2 alone counts as well.
    const other = await withQuota({ tokenCache, authority, clock });
    assert.deepEqual('answerHeaders' in (await other.ask(key)), true);
    assert.equal(authority.exchangeCount, 1);
    await other.gateway.close();
  });

  it('counts a request once, however often it is decided again while it is open', async () => {
    const { ask, gateway, limits } = await withQuota();
    const { id, key } = newKey();
    limits.set(id, 2);
    assert.equal(outcomeOf(await ask(key)), 'allow');
    const open = { ...requestWith({ authorization: [`Token ${key}`] }), isAgain: true };
    for (let count = 0; count < 10; count += 1) assert.equal(outcomeOf(await gateway.decideAgain(open)), 'allow');
    assert.equal(outcomeOf(await ask(key)), 'allow');
    assert.equal(outcomeOf(await ask(key)), 'quota_exceeded');
    await gateway.close();
  });

  it('counts what no cache may keep', async () => {
    const { authority, ask, gateway, limits } = await withQuota();
    const { id, key } = newKey();
    const { alter } = authority;
    // Without all that can revoke it.
    authority.alter = (result) => {
      const altered = alter(result);
      if (altered.outcome !== 'granted') return altered;
      return { ...altered, facts: { ...altered.facts, subjects: [`key:${id}`] } };
    };
    limits.set(id, 2);
    for (let count = 0; count < 2; count += 1) assert.equal(outcomeOf(await ask(key)), 'allow');
    assert.equal(outcomeOf(await ask(key)), 'quota_exceeded');
    assert.equal(authority.exchangeCount, 3);
    await gateway.close();
  });

  it('counts what another gateway had renewed', async () => {
    const clock = createTestClock();
    const tokenCache = createMemoryTokenCache({ clock });
    const authority = new Authority(() => clock.now().wallMs);
    const [one, other] = [
      await withQuota({ clock, tokenCache, authority }),
      await withQuota({ clock, tokenCache, authority }),
    ];
    const { id, key } = newKey();
    other.limits.set(id, 1000);
    await one.ask(key);
    await clock.advance(244_000);
    await one.ask(key);
    await other.ask(key);
    await clock.advance(48_000);
    for (let count = 0; count < 2; count += 1) await other.ask(key);
    await clock.advance(0);
    const renewed = await other.ask(key);
    assert.deepEqual(
      ['token' in renewed && renewed.token, 'answerHeaders' in renewed, authority.exchangeCount],
      ['token-2', true, 2],
    );
    for (const { gateway } of [one, other]) await gateway.close();
  });

  it('charges nothing for what rules refuse, or what an unmet condition does', async () => {
    const { ask, gateway, limits, authority } = await withQuota({
      rules: parseRules('rules: [{ name: a, paths: [/**], methods: [GET], credentials: [jwt] }]'),
    });
    const { id, key } = newKey();
    limits.set(id, 1);
    for (let count = 0; count < 5; count += 1) assert.equal(outcomeOf(await ask(key)), 'credential_kind_not_allowed');
    await gateway.close();
    const open = await started({ authority });
    const bound = newKey();
    authority.alter = (result) =>
      result.outcome === 'granted'
        ? { ...result, conditions: { cidrs: ['192.0.2.0/24'], quotas: [quota(bound.id, 1)] } }
        : result;
    const from = async (sourceAddress: string) =>
      outcomeOf(
        await open.gateway.decide({ ...requestWith({ authorization: [`Token ${bound.key}`] }), sourceAddress }),
      );
    for (let count = 0; count < 5; count += 1) assert.equal(await from('198.51.100.1'), 'address_not_allowed');
    assert.equal(await from('192.0.2.1'), 'allow');
    assert.equal(await from('192.0.2.1'), 'quota_exceeded');
    await open.gateway.close();
  });

  it('has heard of a changed quota as it hears of every change', async () => {
    const { ask, gateway, limits, clock, authority } = await withQuota();
    const { id, key } = newKey();
    limits.set(id, 1);
    assert.equal(outcomeOf(await ask(key)), 'allow');
    assert.equal(outcomeOf(await ask(key)), 'quota_exceeded');
    limits.set(id, 3);
    authority.log.append([`key:${id}`], 'tg.key.changed');
    await clock.advance(400);
    for (let count = 0; count < 3; count += 1) assert.equal(outcomeOf(await ask(key)), 'allow');
    assert.equal(outcomeOf(await ask(key)), 'quota_exceeded');
    limits.delete(id);
    authority.log.append([`key:${id}`], 'tg.key.changed');
    await clock.advance(400);
    const unlimited = await ask(key);
    assert.deepEqual([outcomeOf(unlimited), 'answerHeaders' in unlimited], ['allow', false]);
    await gateway.close();
  });
});

describe('a gateway', () => {
  it('asks once, and decides from L1 from then on', async () => {
    const { authority, ask, gateway } = await started();
    const { key } = newKey();
    const first = await ask(key);
    assert.deepEqual(first, allowWith('token-1', 'api-key'));
    assert.deepEqual(await ask(key), first);
    assert.equal(authority.exchangeCount, 1);
    await gateway.close();
  });

  it('gives an anonymous path a token of nobody, once for all, and a new one when everything is revoked', async () => {
    const rules = parseRules('rules: [{ name: shop, paths: [/shop], access: anonymous }]');
    const { authority, gateway, signal, clock } = await started({ rules });
    const ask = async (path: string, headers = {}) => gateway.decide({ ...requestWith(headers), path });
    const first = await ask('/shop');
    assert.deepEqual(first, allowWith('token-1', 'anonymous'));
    assert.deepEqual(await ask('/shop', { authorization: ['Bearer nonsense'] }), first);
    assert.equal(authority.exchangeCount, 1);
    assert.equal(outcomeOf(await ask('/other')), 'credential_missing');
    signal.onChange(authority.log.append([], 'tg.signing-key.compromised'));
    await clock.advance(0);
    assert.deepEqual(await ask('/shop'), allowWith('token-2', 'anonymous'));
    authority.exchangeValve.isBroken = true;
    signal.onChange(authority.log.append([], 'tg.signing-key.compromised'));
    await clock.advance(0);
    assert.equal((await ask('/shop')).outcome, 'unavailable');
    await gateway.close();
  });

  it('asks about no more unknown credentials of an address whose credentials were none, and answers for the others as ever', async () => {
    const { authority, gateway, clock, exports } = await started();
    const ask = (key: string, sourceAddress: string) => askFrom(gateway, key, sourceAddress);
    const good = newKey().key;
    assert.equal(await ask(good, '192.0.2.1'), 'allow');
    for (const key of badKeys(authority, 50)) assert.equal(await ask(key, '192.0.2.1'), 'user_disabled');
    const asked = authority.exchangeCount;
    for (const key of badKeys(authority, 100)) assert.equal(await ask(key, '192.0.2.1'), 'overloaded');
    assert.equal(await ask(newKey().key, '::ffff:192.0.2.1'), 'overloaded', 'nobody knows that it is good');
    assert.equal(authority.exchangeCount, asked);
    assert.equal(await ask(good, '192.0.2.1'), 'allow');
    assert.equal(await ask(newKey().key, '192.0.2.2'), 'allow');
    // Where it lies, without a text made of it.
    const askOctets = async (
      key: string,
      text = `Token ${key}`,
      header = (_: string): string[] => assert.fail('looked at'),
    ) => {
      const bytes = Buffer.from(text);
      const plainCredential = () => findPlainCredential(defaultCredentialConfig, bytes, 0, bytes.length);
      return outcomeOf(
        await gateway.decide({ ...requestWith({}), header, plainCredential, sourceAddress: '192.0.2.1' }),
      );
    };
    for (const key of badKeys(authority, 1)) assert.equal(await askOctets(key), 'overloaded');
    assert.equal(await askOctets(good), 'allow');
    for (const text of [`Token  ${good}`, `Token ${good} `, `token ${good}`, `Token ${good}\u00a0`]) {
      assert.equal(await askOctets(good, text, (name) => (name === 'authorization' ? [text] : [])), 'allow', text);
    }
    assert.ok(await exports('tg_gateway_limited_total{limit="address"} 102'));
    await clock.advance(1000);
    assert.equal(await ask(newKey().key, '192.0.2.1'), 'allow');
    await gateway.close();
  });

  it('asks about no more unknown credentials of an issuer of whom too many were none, but those from where others were accepted', async () => {
    const { authority, gateway, exports } = await started();
    const ask = (key: string, sourceAddress: string) => askFrom(gateway, key, sourceAddress);
    assert.equal(await ask(newKey().key, '192.0.2.1'), 'allow');
    for (const [caller, key] of badKeys(authority, 100).entries())
      assert.equal(await ask(key, `10.0.0.${caller}`), 'user_disabled');
    assert.equal(await ask(newKey().key, '192.0.2.2'), 'overloaded');
    assert.equal(await ask(newKey().key, ''), 'overloaded');
    assert.equal(await ask(newKey().key, '192.0.2.1'), 'allow');
    assert.ok(await exports('tg_gateway_limited_total{limit="issuer"} 2'));
    await gateway.close();
  });

  it('counts one that was none once, however many ask about it at once and from wherever', async () => {
    const { authority, gateway } = await started();
    const [key = ''] = badKeys(authority, 1);
    authority.exchangeValve.hold();
    const asking = Array.from({ length: 250 }, (_, caller) => askFrom(gateway, key, `10.0.0.${caller}`));
    authority.exchangeValve.open();
    assert.deepEqual(new Set(await Promise.all(asking)), new Set(['user_disabled']));
    assert.equal(authority.exchangeCount, 1);
    for (let caller = 0; caller < 250; caller += 1)
      assert.equal(await askFrom(gateway, newKey().key, `192.0.2.${caller}`), 'allow');
    await gateway.close();
  });

  it('holds nobody up for the conditions of a credential that is good, whoever does not meet them', async () => {
    const { authority, gateway, clock } = await started();
    authority.alter = (result) =>
      result.outcome === 'granted' ? { ...result, conditions: { cidrs: ['10.0.0.0/8'] } } : result;
    for (let count = 0; count < 300; count += 1)
      assert.equal(await askFrom(gateway, newKey().key, '192.0.2.1'), 'address_not_allowed');
    for (const [caller, key] of badKeys(authority, 100).entries())
      assert.equal(await askFrom(gateway, key, `10.0.0.${caller}`), 'user_disabled');
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.1'), 'overloaded', 'nor does it make anybody trusted');
    await clock.advance(50);
    authority.alter = (result) => result;
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.1'), 'allow');
    await gateway.close();
  });

  it('holds nobody up while fewer are none than the budgets bring back, however many are asked about at once', async () => {
    const { authority, gateway, clock } = await started();
    const [bad = ''] = badKeys(authority, 1);
    await Promise.all(Array.from({ length: 10 }, () => askFrom(gateway, bad, '192.0.2.1')));
    for (let wave = 0; wave < 200; wave += 1) {
      const keys = [...badKeys(authority, 1), ...Array.from({ length: 19 }, () => newKey().key)];
      const outcomes = await Promise.all(keys.map((key, caller) => askFrom(gateway, key, `10.0.${wave}.${caller}`)));
      assert.deepEqual(
        outcomes.filter((outcome) => outcome !== 'allow'),
        ['user_disabled'],
      );
      await clock.advance(100);
    }
    await gateway.close();
  });

  it('gives one up that waits for its exchange when the budgets of all who ask about it are spent, and not before', async () => {
    const { authority, gateway, clock, exports } = await started();
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.1'), 'allow');
    authority.exchangeValve.hold();
    const flood = badKeys(authority, 250).map((key, caller) => askFrom(gateway, key, `10.0.0.${caller}`));
    const [joined, alone] = [newKey(), newKey()];
    const asking = [
      askFrom(gateway, joined.key, '192.0.2.2'),
      askFrom(gateway, joined.key, '192.0.2.1'),
      askFrom(gateway, alone.key, '192.0.2.3'),
    ];
    await clock.advance(0);
    authority.exchangeValve.open();
    const outcomes = await Promise.all(flood);
    assert.deepEqual(await Promise.all(asking), ['allow', 'allow', 'overloaded']);
    const given = outcomes.filter((outcome) => outcome === 'overloaded').length;
    assert.ok(given > 50 && given < 150, `${given} of 250`);
    assert.ok(await exports(`tg_gateway_limited_total{limit="issuer"} ${given + 1}`));
    await gateway.close();
  });

  it('has nothing exchanged for whom a budget was spent while L2 was asked', async () => {
    const l2 = emptyL2();
    const { authority, gateway } = await started(l2);
    l2.isSlow = true;
    const asking = askFrom(gateway, newKey().key, '192.0.2.1');
    l2.isSlow = false;
    await Promise.all(badKeys(authority, 80).map((key) => askFrom(gateway, key, '192.0.2.1')));
    const { exchangeCount } = authority;
    l2.answer();
    assert.equal(await asking, 'overloaded');
    assert.equal(authority.exchangeCount, exchangeCount);
    await gateway.close();
  });

  it('trusts an address for whose uses a grant is renewed, but not for those of nobody', async () => {
    const rules = parseRules('rules: [{ name: shop, paths: [/shop], access: anonymous }]');
    const { authority, gateway, clock } = await started({ rules });
    const { key } = newKey();
    for (let elapsed = 0; elapsed < 1500; elapsed += 10) {
      assert.equal(await askFrom(gateway, key, '192.0.2.1'), 'allow');
      const anonymous = await gateway.decide({ ...requestWith({}), path: '/shop', sourceAddress: '192.0.2.3' });
      assert.equal(outcomeOf(anonymous), 'allow');
      await clock.advance(10_000);
    }
    await floodFrom({ authority, gateway }, (at) => `10.0.0.${at}`);
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.2'), 'overloaded');
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.3'), 'overloaded');
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.1'), 'allow');
    await clock.advance(600_000);
    await floodFrom({ authority, gateway }, (at) => `10.0.0.${at}`);
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.1'), 'overloaded', 'two lives of a grant later');
    await gateway.close();
  });

  it('trusts no address for a renewal that brought nothing', async () => {
    const { authority, gateway, clock } = await started();
    const { key } = newKey();
    await askFrom(gateway, key, '192.0.2.1');
    await clock.advance(260_000);
    authority.alter = () => ({ outcome: 'refused', code: 'key_revoked', facts: null });
    assert.equal(await askFrom(gateway, key, '192.0.2.2'), 'allow');
    await clock.advance(0);
    assert.equal(authority.exchangeCount, 2);
    authority.alter = (result) => result;
    await floodFrom({ authority, gateway }, (at) => `10.0.0.${at}`);
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.2'), 'overloaded');
    await gateway.close();
  });

  it('charges every exchange that finds none, also one for who came too late to wait for another', async () => {
    const { authority, gateway, clock } = await started();
    authority.exchangeValve.hold();
    const bad = badKeys(authority, 26);
    const ask = () => bad.map((key) => askFrom(gateway, key, '192.0.2.1'));
    const first = ask();
    await clock.advance(501);
    const late = ask();
    await clock.advance(0);
    assert.equal(authority.exchangeCount, 32, 'as many as there is room for');
    authority.exchangeValve.open();
    assert.deepEqual(new Set(await Promise.all([...first, ...late])), new Set(['user_disabled']));
    assert.equal(authority.exchangeCount, 52);
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.1'), 'overloaded');
    await gateway.close();
  });

  it('charges none that is good and gives no access to this, nor one whose refusal is overtaken', async () => {
    const { authority, gateway, clock, signal } = await started();
    for (const code of ['condition_unknown', 'audience_not_allowed', 'client_not_allowed'] as const) {
      authority.alter = () => ({ outcome: 'refused', code, facts: null });
      for (let count = 0; count < 60; count += 1) assert.equal(await askFrom(gateway, newKey().key, '192.0.2.1'), code);
    }
    authority.alter = (result) => result;
    for (let count = 0; count < 60; count += 1) {
      const { id, key } = newKey();
      signal.onChange(authority.disable(id));
      authority.exchangeValve.hold();
      const asking = askFrom(gateway, key, '192.0.2.1');
      await clock.advance(0);
      signal.onChange(authority.enable(id));
      authority.exchangeValve.open();
      assert.equal(await asking, 'allow');
    }
    assert.equal(authority.exchangeCount, 300);
    await gateway.close();
  });

  it('charges none that was good until now, and asks about one that is, whatever is spent', async () => {
    const { authority, gateway, signal } = await started();
    const keys = Array.from({ length: 60 }, newKey);
    for (const { key } of keys) assert.equal(await askFrom(gateway, key, '192.0.2.1'), 'allow');
    for (const { id, key } of keys.slice(1)) {
      signal.onChange(authority.disable(id));
      assert.equal(await askFrom(gateway, key, '192.0.2.1'), 'user_disabled');
    }
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.1'), 'allow');
    for (const key of badKeys(authority, 50)) assert.equal(await askFrom(gateway, key, '192.0.2.1'), 'user_disabled');
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.1'), 'overloaded');
    for (const [caller, key] of badKeys(authority, 50).entries())
      assert.equal(await askFrom(gateway, key, `10.0.0.${caller}`), 'user_disabled');
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.2'), 'overloaded');
    signal.onChange(authority.log.append([]));
    assert.equal(await askFrom(gateway, keys[0]?.key ?? '', '192.0.2.1'), 'allow', 'at a spent address');
    signal.onChange(authority.log.append([]));
    assert.equal(await askFrom(gateway, keys[0]?.key ?? '', '192.0.2.2'), 'allow', 'of a spent issuer');
    await gateway.close();
  });

  it('lets who is held up wait for what others have asked about, without any trust in where that comes from', async () => {
    const { authority, gateway, clock } = await started();
    await floodFrom({ authority, gateway }, () => '192.0.2.1');
    const before = authority.exchangeCount;
    authority.exchangeValve.hold();
    const { key } = newKey();
    const asking = [askFrom(gateway, key, '192.0.2.2')];
    await clock.advance(0);
    asking.push(askFrom(gateway, key, '192.0.2.1'), askFrom(gateway, key, '192.0.2.3'));
    await clock.advance(501);
    assert.equal(await askFrom(gateway, key, '192.0.2.1'), 'overloaded', 'it would be another exchange');
    authority.exchangeValve.open();
    assert.deepEqual(await Promise.all(asking), ['allow', 'allow', 'allow']);
    assert.equal(authority.exchangeCount, before + 1);
    await floodFrom({ authority, gateway }, (at) => `10.0.0.${at}`);
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.2'), 'allow');
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.3'), 'overloaded');
    await gateway.close();
  });

  it('lets who is held up wait for a read of L2 that others wait for', async () => {
    const l2 = emptyL2();
    const { authority, gateway } = await started(l2);
    await floodFrom({ authority, gateway }, () => '192.0.2.1');
    l2.isSlow = true;
    const { key } = newKey();
    const asking = ['192.0.2.2', '192.0.2.1'].map((address) => askFrom(gateway, key, address));
    l2.answer();
    assert.deepEqual(await Promise.all(asking), ['allow', 'allow']);
    await gateway.close();
  });

  it('charges who keeps an exchange from being given up', async () => {
    const { authority, gateway, clock } = await started();
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.1'), 'allow');
    const bad = badKeys(authority, 500);
    authority.exchangeValve.hold();
    const flood = bad.map((key) => askFrom(gateway, key, '192.0.2.2'));
    await clock.advance(0);
    flood.push(...bad.map((key) => askFrom(gateway, key, '192.0.2.1')));
    await clock.advance(0);
    authority.exchangeValve.open();
    assert.ok((await Promise.all(flood)).includes('overloaded'));
    assert.ok(authority.exchangeCount < 200, `${authority.exchangeCount} exchanges`);
    assert.equal(await askFrom(gateway, newKey().key, '192.0.2.1'), 'overloaded');
    await gateway.close();
  });

  it('has one budget for all issuers it does not know, while it cannot say that they are none', async () => {
    const { authority, gateway, clock } = await started();
    authority.disabled.add('');
    const askOf = async (issuer: string, sourceAddress: string) => {
      const token = tokenOf({ iss: issuer, exp: clock.now().wallMs / 1000 + 60 }).replace('.c2ln', `.${randomUUID()}`);
      const headers = { authorization: [`Bearer ${token.replaceAll('-', '')}`] };
      return outcomeOf(await gateway.decide({ ...requestWith(headers), sourceAddress }));
    };
    assert.equal(await askOf('https://made-up.example', '192.0.2.1'), 'token_issuer_unknown');
    authority.listIsBroken = true;
    authority.log.append([providerSubject('p')], 'tg.provider.changed');
    await clock.advance(300);
    for (let count = 0; count < 100; count += 1)
      assert.equal(await askOf(`https://${count}.example`, `10.0.0.${count}`), 'user_disabled');
    assert.equal(await askOf('https://another.example', '192.0.2.1'), 'overloaded');
    await gateway.close();
  });

  it('takes an opaque token where one provider has its prefix, and asks nobody about any other', async () => {
    const clock = createTestClock();
    const authority = new Authority(() => clock.now().wallMs);
    authority.issuers.add('https://provider.example');
    authority.rules = { introspection: { tokenPrefix: 'acme_' } };
    const config = { credential: { ...defaultCredentialConfig, importedKeyPrefixes: ['acme_live_'] } };
    const { gateway } = await started({ clock, authority, config });
    const ask = async (authorization: string) => gateway.decide(requestWith({ authorization: [authorization] }));
    const token = `acme_${'x'.repeat(32)}`;
    for (const garbage of [
      `Bearer other_${'x'.repeat(32)}`,
      `Bearer acme${'x'.repeat(32)}`,
      'Bearer acme_short',
      `Bearer acme_live_${'x'.repeat(32)}`,
      `Bearer ${token} x`,
      `Token ${token}\0`,
      `DPoP ${'x'.repeat(32)}`,
      `Bearer ${'x'.repeat(32)}.${'x'.repeat(32)}.${'x'.repeat(32)}`,
    ]) {
      assert.equal(outcomeOf(await ask(garbage)), 'credential_malformed', garbage);
    }
    assert.equal(outcomeOf(await ask(`Token ${token}`)), 'key_checksum_invalid');
    assert.equal(authority.exchangeCount, 0);
    assert.equal(outcomeOf(await ask(`Bearer ${token}`)), 'allow');
    assert.equal(outcomeOf(await ask(`Bearer ${token}`)), 'allow');
    assert.equal(authority.exchangeCount, 1);

    authority.rules = {};
    authority.log.append([providerSubject('p')], 'tg.provider.changed');
    await clock.advance(1000);
    assert.equal(outcomeOf(await ask(`Bearer acme_${'y'.repeat(32)}`)), 'credential_malformed');
    await gateway.close();
  });

  it('is not ready without a list of providers, since it could not tell an unknown issuer', async () => {
    const clock = createTestClock();
    const authority = new Authority(() => clock.now().wallMs);
    authority.providersValve.hold();
    const { gateway } = await started({ clock, authority, notReady: ['no list of providers yet'] });
    authority.providersValve.open();
    await clock.advance(0);
    assert.deepEqual(gateway.notReady(), []);
    await gateway.close();
  });

  it('refuses at once what a signal revoked', async () => {
    const { authority, ask, signal, gateway } = await started();
    const { id, key } = newKey();
    await ask(key);
    signal.onChange(authority.disable(id));
    assert.equal(outcomeOf(await ask(key)), 'user_disabled');
    await gateway.close();
  });

  it('refuses what was revoked without any signal after the next watermark', async () => {
    const { authority, ask, clock, gateway } = await started();
    const { id, key } = newKey();
    await ask(key);
    authority.disable(id);
    await clock.advance(300);
    assert.equal(outcomeOf(await ask(key)), 'user_disabled');
    await gateway.close();
  });

  it('uses no cached decision longer than maxStaleness without a watermark, then asks for each request, then recovers', async () => {
    const { authority, ask, clock, gateway } = await started();
    const { key } = newKey();
    await ask(key);
    authority.watermarkValve.isBroken = true;
    authority.exchangeValve.isBroken = true;
    await clock.advance(600);
    assert.equal(outcomeOf(await ask(key)), 'allow');
    await clock.advance(390);
    assert.equal(outcomeOf(await ask(key)), 'auth_server_unavailable');
    authority.exchangeValve.isBroken = false;
    const asked = authority.exchangeCount;
    assert.equal(outcomeOf(await ask(key)), 'allow');
    assert.equal(authority.exchangeCount, asked + 1);
    authority.watermarkValve.isBroken = false;
    await clock.advance(300);
    assert.equal(outcomeOf(await ask(key)), 'allow');
    assert.equal(authority.exchangeCount, asked + 1);
    await gateway.close();
  });

  it('does not count an answer of identity as fresh from when it arrived', async () => {
    const { authority, ask, clock, gateway } = await started();
    const { id, key } = newKey();
    await ask(key);
    authority.watermarkValve.hold();
    await clock.advance(600);
    authority.disable(id);
    await clock.advance(950);
    // All the answers held back were read before the revocation.
    authority.watermarkValve.open();
    authority.watermarkValve.isBroken = true;
    await clock.advance(0);
    authority.exchangeValve.isBroken = true;
    assert.equal(outcomeOf(await ask(key)), 'auth_server_unavailable');
    await gateway.close();
  });

  it('does not use the result of an exchange that a revocation overtook', async () => {
    const { authority, ask, signal, clock, gateway, exports } = await started();
    const { id, key } = newKey();
    authority.exchangeValve.hold();
    const decision = ask(key);
    await clock.advance(0);
    signal.onChange(authority.disable(id));
    authority.exchangeValve.open();
    assert.equal(outcomeOf(await decision), 'user_disabled');
    assert.equal(authority.exchangeCount, 2);
    assert.ok(await exports('tg_gateway_grants_total{admission="tombstoned"} 1'));
    await gateway.close();
  });

  it('does not use the result of an exchange that took longer than the age bound, though no signal came', async () => {
    const { authority, ask, clock, gateway } = await started();
    const { id, key } = newKey();
    authority.exchangeValve.hold();
    authority.watermarkValve.isBroken = true;
    const decision = ask(key);
    await clock.advance(10);
    authority.disable(id);
    await clock.advance(985);
    authority.exchangeValve.open();
    assert.equal(outcomeOf(await decision), 'user_disabled');
    assert.equal(authority.exchangeCount, 2);
    await gateway.close();
  });

  it('asks once more when an exchange took longer than the age bound, and gives up when that does as well', async () => {
    const { authority, ask, clock, gateway } = await started();
    authority.maxStalenessMs = 0;
    const { key } = newKey();
    authority.exchangeValve.hold();
    const slowOnce = ask(key);
    await clock.advance(300);
    authority.exchangeValve.open();
    assert.equal(outcomeOf(await slowOnce), 'allow');
    assert.equal(authority.exchangeCount, 2);
    authority.exchangeValve.hold();
    const slowTwice = ask(key);
    for (let attempt = 0; attempt < 2; attempt++) {
      await clock.advance(300);
      authority.exchangeValve.open();
      authority.exchangeValve.hold();
    }
    assert.equal(outcomeOf(await slowTwice), 'decision_unavailable');
    assert.equal(authority.exchangeCount, 4);
    await gateway.close();
  });

  it('lets waiters inherit the moment the exchange was asked', async () => {
    const { authority, ask, clock, gateway } = await started();
    const { key } = newKey();
    authority.exchangeValve.hold();
    authority.watermarkValve.isBroken = true;
    const first = ask(key);
    await clock.advance(90);
    const joined = ask(key);
    await clock.advance(905);
    authority.exchangeValve.open();
    // Neither uses the first answer: both ask once more, together.
    const allowed = allowWith('token-2', 'api-key');
    assert.deepEqual([await first, await joined], [allowed, allowed]);
    assert.equal(authority.exchangeCount, 2);
    await gateway.close();
  });

  it('lets nobody join an exchange that has taken a while', async () => {
    const { authority, ask, clock, gateway } = await started();
    const { key } = newKey();
    authority.exchangeValve.hold();
    const first = ask(key);
    await clock.advance(600);
    const late = ask(key);
    await clock.advance(0);
    assert.equal(authority.exchangeCount, 2);
    authority.exchangeValve.open();
    assert.deepEqual([(await first).outcome, (await late).outcome], ['allow', 'allow']);
    await gateway.close();
  });

  it('asks once for all requests that wait for the same credential', async () => {
    const { authority, ask, gateway } = await started();
    const { key } = newKey();
    const decisions = await Promise.all(Array.from({ length: 100 }, () => ask(key)));
    assert.ok(decisions.every(({ outcome }) => outcome === 'allow'));
    assert.equal(authority.exchangeCount, 1);
    await gateway.close();
  });

  it('keeps nothing for a tenant whose maxStaleness is 0', async () => {
    const { authority, ask, gateway } = await started();
    authority.maxStalenessMs = 0;
    const { key } = newKey();
    for (let count = 1; count <= 3; count++) {
      assert.equal(outcomeOf(await ask(key)), 'allow');
      assert.equal(authority.exchangeCount, count);
    }
    await gateway.close();
  });

  it('keeps nothing that does not name all that can revoke it', async () => {
    const { authority, ask, gateway } = await started();
    authority.alter = (result) => {
      if (result.outcome !== 'granted') return result;
      const subjects = result.facts.subjects.filter((subject) => !subject.startsWith('tenant:'));
      assert.equal(hasAllSubjects(subjects), false);
      return { ...result, facts: { ...result.facts, subjects } };
    };
    const { key } = newKey();
    for (let count = 1; count <= 2; count++) {
      assert.equal(outcomeOf(await ask(key)), 'allow');
      assert.equal(authority.exchangeCount, count);
    }
    await gateway.close();
  });

  it('keeps a refusal until a change can have made it untrue', async () => {
    const { authority, ask, signal, gateway } = await started();
    const { id, key } = newKey();
    authority.disable(id);
    assert.equal(outcomeOf(await ask(key)), 'user_disabled');
    assert.equal(outcomeOf(await ask(key)), 'user_disabled');
    assert.equal(authority.exchangeCount, 1);
    signal.onChange(authority.enable(id));
    assert.equal(outcomeOf(await ask(key)), 'allow');
    await gateway.close();
  });

  it('refuses an unknown issuer by itself only while it knows every provider, and else asks the auth server', async () => {
    const { clock, authority, gateway } = await started();
    const decided = async () => {
      const token = tokenOf({ iss: 'https://new.example', exp: clock.now().wallMs / 1000 + 3600, jti: randomUUID() });
      return outcomeOf(await gateway.decide(requestWith({ authorization: [`Bearer ${token}`] })));
    };
    assert.equal(await decided(), 'token_issuer_unknown');
    assert.equal(authority.exchangeCount, 0, 'it took no exchange');

    authority.watermarkValve.isBroken = true;
    authority.log.append([providerSubject('p')], 'tg.provider.created');
    await clock.advance(1000);
    assert.equal(await decided(), 'allow', 'cut off from identity, it cannot know of new providers');

    authority.watermarkValve.isBroken = false;
    authority.listIsBroken = true;
    await clock.advance(1000);
    assert.equal(await decided(), 'allow', 'it heard of a change that its list lacks');

    authority.listIsBroken = false;
    await clock.advance(1000);
    assert.equal(await decided(), 'token_issuer_unknown');
  });

  it('does not become fresh by refusals, which the auth server may give without asking identity', async () => {
    const { authority, ask, clock, gateway } = await started();
    const { id, key } = newKey();
    const garbage = newKey();
    await ask(key);
    authority.watermarkValve.isBroken = true;
    authority.alter = (result) => ({ outcome: 'refused', code: 'token_signature_invalid', facts: result.facts });
    const before = authority.disable(id).seq - 1;
    authority.alter = () => ({
      outcome: 'refused',
      code: 'token_signature_invalid',
      facts: { asOf: { epoch: 1, seq: before }, subjects: ['provider:p'] },
    });
    for (let elapsed = 0; elapsed < 1000; elapsed += 250) {
      await clock.advance(250);
      assert.equal(outcomeOf(await ask(garbage.key)), 'token_signature_invalid');
    }
    authority.alter = (result) => result;
    assert.equal(outcomeOf(await ask(key)), 'user_disabled');
    await gateway.close();
  });

  it('drops everything when identity announces a new epoch, also when it hears of it by an exchange', async () => {
    const { authority, ask, clock, gateway } = await started();
    const { key } = newKey();
    await ask(key);
    authority.log.epoch = 2;
    const other = newKey();
    assert.equal(outcomeOf(await ask(other.key)), 'allow');
    await clock.advance(50);
    const asked = authority.exchangeCount;
    await ask(key);
    await ask(other.key);
    assert.equal(authority.exchangeCount, asked + 2);
    await ask(key);
    await ask(other.key);
    assert.equal(authority.exchangeCount, asked + 2);
    await gateway.close();
  });

  it('believes nothing of an exchange with a replaced history', async () => {
    const { authority, ask, gateway } = await started();
    authority.alter = (result) =>
      result.outcome === 'granted' ? { ...result, facts: { ...result.facts, asOf: { epoch: 0, seq: 99 } } } : result;
    assert.equal((await ask(newKey().key)).outcome, 'unavailable');
    await gateway.close();
  });

  it('asks often enough for the smallest maxStaleness it serves', async () => {
    const { authority, ask, clock, gateway } = await started();
    authority.maxStalenessMs = 150;
    const { key } = newKey();
    await ask(key);
    for (let elapsed = 0; elapsed < 2000; elapsed += 40) {
      await clock.advance(40);
      assert.equal(outcomeOf(await ask(key)), 'allow');
    }
    assert.equal(authority.exchangeCount, 1);
    await gateway.close();
  });

  it('decides again of open requests as of others, counts them apart, and asks about them only in spare room', async () => {
    const { authority, gateway, clock, exports } = await started({ config: { exchangesMax: 8 } });
    const openedWith = (key: string) => ({
      ...requestWith({ authorization: [`Token ${key}`] }),
      presented: new PresentedOnce(),
      isAgain: true,
    });
    const keys = Array.from({ length: 20 }, newKey);
    const again = keys.map(({ key }) => openedWith(key));
    for (const { key } of keys) await gateway.decide(requestWith({ authorization: [`Token ${key}`] }));
    for (const request of again) assert.equal(outcomeOf(gateway.decideAgain(request) as RuledDecision), 'allow');
    assert.ok(await exports('tg_gateway_decisions_total{source="open",outcome="allow",code=""} 20'));
    const [first] = keys;
    assert.ok(first);
    authority.disable(first.id);
    await clock.advance(300);
    const decided = await Promise.all(again.map((request) => gateway.decideAgain(request)));
    assert.deepEqual(decided.map(outcomeOf), ['user_disabled', ...Array.from({ length: 19 }, () => 'allow')]);
    authority.watermarkValve.isBroken = true;
    authority.exchangeValve.hold();
    await clock.advance(2000);
    const before = authority.exchangeCount;
    const deciding = again.slice(1).map((request) => gateway.decideAgain(request));
    await clock.advance(0);
    assert.equal(authority.exchangeCount - before, 4, 'half of the room');
    authority.exchangeValve.open();
    const outcomes = (await Promise.all(deciding)).map(outcomeOf);
    assert.deepEqual([outcomes.filter((outcome) => outcome === 'allow').length, outcomes.at(-1)], [4, 'overloaded']);
    const later = await Promise.all(again.slice(1).map((request) => gateway.decideAgain(request)));
    assert.deepEqual(new Set(later.map(outcomeOf)), new Set(['allow']), 'one answer freshens all');
    await gateway.close();
  });

  it('is stale at once when the machine was suspended', async () => {
    const { authority, ask, clock, gateway } = await started();
    const { key } = newKey();
    await ask(key);
    clock.set({ wallMs: clock.now().wallMs + 60_000 });
    await ask(key);
    assert.equal(authority.exchangeCount, 2);
    await gateway.close();
  });

  it('leaves a token its last moments unused, so that it reaches the service alive', async () => {
    const { authority, ask, clock, gateway } = await started();
    authority.tokenLifeMs = 10_000;
    const { key } = newKey();
    await ask(key);
    await clock.advance(8_900);
    assert.equal(outcomeOf(await ask(key)), 'allow');
    assert.equal(authority.exchangeCount, 1);
    await clock.advance(200);
    await ask(key);
    assert.equal(authority.exchangeCount, 2);
    await gateway.close();
  });

  it('purges what left L2, and what a marker of an expired key names', async () => {
    const { authority, ask, signal, gateway } = await started();
    const { id, key } = newKey();
    await ask(key);
    signal.onPurge({ subject: `key:${id}` });
    await ask(key);
    assert.equal(authority.exchangeCount, 2);
    await gateway.close();
  });

  it('asks for one exchange in 50 ms while none is decided, and for each again after the first that is', async () => {
    const { authority, ask, clock, gateway } = await started();
    authority.exchangeValve.isBroken = true;
    const askMany = async (count: number) => {
      const before = authority.exchangeCount;
      const decisions = await Promise.all(Array.from({ length: count }, () => ask(newKey().key)));
      return { asked: authority.exchangeCount - before, outcomes: new Set(decisions.map(outcomeOf)) };
    };
    await askMany(16);
    for (let round = 0; round < 3; round++) {
      assert.deepEqual(await askMany(50), { asked: 1, outcomes: new Set(['auth_server_unavailable']) });
      await clock.advance(50);
    }
    authority.exchangeValve.isBroken = false;
    assert.equal(outcomeOf(await ask(newKey().key)), 'allow');
    assert.deepEqual(await askMany(50), { asked: 50, outcomes: new Set(['allow']) });
    await gateway.close();
  });

  it('asks for credentials in good standing, whatever others fail with', async () => {
    const { authority, ask, signal, gateway } = await started();
    const good = newKey();
    await ask(good.key);
    authority.exchangeValve.isBroken = true;
    for (let count = 0; count < 50; count++) await ask(newKey().key);
    signal.onChange(authority.log.append([]));
    authority.exchangeValve.isBroken = false;
    assert.equal(outcomeOf(await ask(good.key)), 'allow');
    await gateway.close();
  });

  it('goes on asking for everybody while one provider is away', async () => {
    const { authority, ask, gateway } = await started();
    authority.exchangeFailure = 'provider_unavailable';
    authority.exchangeValve.isBroken = true;
    for (let count = 0; count < 50; count++) assert.equal(outcomeOf(await ask(newKey().key)), 'provider_unavailable');
    authority.exchangeValve.isBroken = false;
    assert.equal(outcomeOf(await ask(newKey().key)), 'allow');
    await gateway.close();
  });

  it('serves credentials in good standing while a flood of others waits for the auth server', async () => {
    const { authority, ask, signal, clock, gateway } = await started({ config: { exchangesMax: 4 } });
    const good = newKey();
    await ask(good.key);
    authority.exchangeValve.hold();
    const flood = Array.from({ length: 200 }, () => ask(newKey().key));
    await clock.advance(0);
    const before = authority.exchangeCount;
    assert.equal(before, 3);
    signal.onChange(authority.log.append([]));
    const decision = ask(good.key);
    await clock.advance(0);
    assert.equal(authority.exchangeCount, before + 1);
    authority.exchangeValve.open();
    assert.equal(outcomeOf(await decision), 'allow');
    const outcomes = (await Promise.all(flood)).map(outcomeOf);
    assert.ok(outcomes.includes('overloaded'));
    assert.ok(outcomes.every((outcome) => outcome === 'allow' || outcome === 'overloaded'));
    await gateway.close();
  });
});

describe('a grant in use', () => {
  /** Within the time in which it is renewed: its life is 295 s, and the random number 0.5. */
  const nearEndMs = 244_000;

  async function nearItsEnd(options: Options = {}) {
    const system = await started(options);
    const { id, key } = newKey();
    const first = await system.ask(key);
    await system.clock.advance(nearEndMs);
    return { ...system, id, key, first };
  }

  it('is renewed before it ends, by one exchange for which nobody waits', async () => {
    const { authority, ask, clock, gateway, exports, key, first } = await nearItsEnd();
    authority.exchangeValve.hold();
    for (let count = 0; count < 100; count++) assert.deepEqual(await ask(key), first);
    await clock.advance(0);
    assert.equal(authority.exchangeCount, 2);
    authority.exchangeValve.open();
    await clock.advance(0);
    assert.ok(await exports('tg_gateway_renewals_total{result="exchange"} 1'));
    authority.exchangeValve.isBroken = true;
    await clock.advance(200_000);
    assert.deepEqual(await ask(key), allowWith('token-2', 'api-key'), 'beyond the end of the first');
    await gateway.close();
  });

  it('is renewed for a use of it only', async () => {
    const { authority, ask, clock, gateway, key } = await nearItsEnd();
    await clock.advance(200_000);
    assert.equal(authority.exchangeCount, 1);
    await ask(key);
    assert.equal(authority.exchangeCount, 2);
    await gateway.close();
  });

  it('that ends with its credential is renewed once, since more would bring no more', async () => {
    const { authority, ask, clock, gateway, key } = await nearItsEnd();
    const endsAtMs = clock.now().wallMs + 51_000;
    authority.alter = (result) => (result.outcome === 'granted' ? { ...result, tokenExpiresAtMs: endsAtMs } : result);
    for (let elapsed = 0; elapsed < 45_000; elapsed += 500) {
      assert.equal(outcomeOf(await ask(key)), 'allow');
      await clock.advance(500);
    }
    assert.equal(authority.exchangeCount, 2);
    await gateway.close();
  });

  it('is used no more once its renewal was refused, though the refusal may not be kept', async () => {
    const { authority, ask, clock, gateway, exports, key } = await nearItsEnd();
    authority.alter = () => ({ outcome: 'refused', code: 'credential_revoked', facts: null });
    assert.equal(outcomeOf(await ask(key)), 'allow');
    await clock.advance(0);
    assert.ok(await exports('tg_gateway_renewals_total{result="refused"} 1'));
    assert.equal(outcomeOf(await ask(key)), 'credential_revoked');
    await gateway.close();
  });

  it('is not renewed by a result that a revocation overtook', async () => {
    const { authority, ask, signal, clock, gateway, exports, id, key } = await nearItsEnd();
    authority.exchangeValve.hold();
    await ask(key);
    await clock.advance(0);
    signal.onChange(authority.disable(id));
    authority.exchangeValve.open();
    await clock.advance(0);
    assert.ok(await exports('tg_gateway_renewals_total{result="not-admitted"} 1'));
    assert.equal(outcomeOf(await ask(key)), 'user_disabled');
    await gateway.close();
  });

  it('is renewed behind the requests that wait for an exchange', async () => {
    const { authority, ask, clock, gateway, exports, key } = await nearItsEnd({ config: { exchangesMax: 4 } });
    authority.exchangeValve.hold();
    const waiting = [ask(newKey().key), ask(newKey().key), ask(newKey().key)];
    await clock.advance(0);
    const asked = authority.exchangeCount;
    assert.equal(outcomeOf(await ask(key)), 'allow');
    await clock.advance(0);
    assert.equal(authority.exchangeCount, asked);
    assert.ok(await exports('tg_gateway_renewals_total{result="no-room"} 1'));
    authority.exchangeValve.open();
    await Promise.all(waiting);
    await clock.advance(2000);
    await ask(key);
    await clock.advance(0);
    assert.ok(await exports('tg_gateway_renewals_total{result="exchange"} 1'));
    await gateway.close();
  });

  it('is used to its end while it cannot be renewed, which is tried no more than once in a second', async () => {
    const { authority, ask, clock, gateway, key } = await nearItsEnd();
    authority.exchangeValve.isBroken = true;
    const asked = authority.exchangeCount;
    for (let elapsed = 0; elapsed < 50_000; elapsed += 250) {
      assert.equal(outcomeOf(await ask(key)), 'allow');
      await clock.advance(250);
    }
    const attempts = authority.exchangeCount - asked;
    assert.ok(attempts >= 16 && attempts <= 50, `${attempts}`);
    await clock.advance(2_000);
    assert.equal(outcomeOf(await ask(key)), 'auth_server_unavailable');
    await gateway.close();
  });

  it('that is renewed at one gateway takes the others no exchange', async () => {
    const clock = createTestClock();
    const tokenCache = createMemoryTokenCache({ clock });
    const authority = new Authority(() => clock.now().wallMs);
    const one = await nearItsEnd({ clock, tokenCache, authority });
    const other = await started({ clock, tokenCache, authority });
    assert.deepEqual(await other.ask(one.key), one.first);
    await one.ask(one.key);
    await clock.advance(0);
    assert.equal(authority.exchangeCount, 2);
    await clock.advance(48_000);
    assert.deepEqual(await other.ask(one.key), one.first);
    await clock.advance(0);
    assert.deepEqual(await other.ask(one.key), allowWith('token-2', 'api-key'));
    assert.equal(authority.exchangeCount, 2);
    assert.ok(await other.exports('tg_gateway_renewals_total{result="l2"} 1'));
    for (const { gateway } of [one, other]) await gateway.close();
  });

  it('whose renewal is refused leaves L2 too', async () => {
    const clock = createTestClock();
    const tokenCache = createMemoryTokenCache({ clock });
    const { authority, ask, gateway, key } = await nearItsEnd({ clock, tokenCache });
    authority.alter = () => ({ outcome: 'refused', code: 'credential_revoked', facts: null });
    await ask(key);
    await clock.advance(0);
    assert.equal(outcomeOf(await ask(key)), 'credential_revoked');
    await gateway.close();
  });
});

describe('L2', () => {
  function l2With(get: TokenCache['get']): TokenCache {
    return {
      get,
      set: () => Promise.reject(new Error('away')),
      removeBySubjects: async () => 0,
      close: async () => {},
    };
  }

  it('that does not answer in time is a miss', async () => {
    const tokenCache = l2With(() => new Promise(() => undefined));
    const { authority, ask, clock, gateway, exports } = await started({ tokenCache, config: { l2TimeoutMs: 25 } });
    const decision = ask(newKey().key);
    await clock.advance(24);
    assert.equal(authority.exchangeCount, 0);
    await clock.advance(1);
    assert.equal(outcomeOf(await decision), 'allow');
    assert.ok(await exports('tg_gateway_l2_reads_total{result="late"} 1'));
    await gateway.close();
  });

  it('is read once for all requests that wait for the same credential, by a gateway that knows nothing yet', async () => {
    const clock = createTestClock();
    const l2 = createMemoryTokenCache({ clock });
    const authority = new Authority(() => clock.now().wallMs);
    const warm = await started({ clock, authority, tokenCache: l2 });
    const keys = Array.from({ length: 50 }, () => newKey().key);
    for (const key of keys) await warm.ask(key);
    await clock.advance(0);
    let reads = 0;
    const get: TokenCache['get'] = (cacheKey) => {
      reads += 1;
      return l2.get(cacheKey);
    };
    const cold = await started({ clock, authority, tokenCache: { ...l2, get } });
    const decisions = await Promise.all(keys.flatMap((key) => Array.from({ length: 20 }, () => cold.ask(key))));
    assert.ok(decisions.every(({ outcome }) => outcome === 'allow'));
    assert.equal(reads, keys.length);
    assert.equal(authority.exchangeCount, keys.length);
    for (const { gateway } of [warm, cold]) await gateway.close();
  });

  async function pair() {
    const clock = createTestClock();
    const tokenCache = createMemoryTokenCache({ clock });
    const authority = new Authority(() => clock.now().wallMs);
    const options = { clock, tokenCache, authority };
    return { tokenCache, authority, clock, one: await started(options), other: await started(options) };
  }

  it('spares the second gateway the exchange', async () => {
    const { authority, clock, one, other } = await pair();
    const { key } = newKey();
    const first = await one.ask(key);
    await clock.advance(0);
    assert.deepEqual(await other.ask(key), first);
    assert.equal(authority.exchangeCount, 1);
    await one.gateway.close();
    await other.gateway.close();
  });

  it('filled again by a slow gateway after the revocation is not believed', async () => {
    const { authority, clock, one, other } = await pair();
    const { id, key } = newKey();
    // One has not heard of the revocation when it fills L2; the other has.
    authority.exchangeValve.hold();
    const slow = one.ask(key);
    await clock.advance(0);
    const change = authority.disable(id);
    other.signal.onChange(change);
    authority.exchangeValve.open();
    assert.equal(outcomeOf(await slow), 'allow');
    await clock.advance(0);
    assert.equal(outcomeOf(await other.ask(key)), 'user_disabled');
    await one.gateway.close();
    await other.gateway.close();
  });

  it('gives nothing to a gateway that starts after the revocation, though nobody removed the entry', async () => {
    const { authority, clock, tokenCache, one, other } = await pair();
    const { id, key } = newKey();
    await one.ask(key);
    await clock.advance(0);
    authority.disable(id);
    const cold = await started({ clock, tokenCache, authority });
    assert.equal(outcomeOf(await cold.ask(key)), 'user_disabled');
    for (const { gateway } of [one, other, cold]) await gateway.close();
  });

  it('that fails or holds garbage is a miss', async () => {
    const { key } = newKey();
    for (const get of [() => Promise.reject(new Error('away')), async () => Buffer.from('garbage')]) {
      const { ask, gateway } = await started({ tokenCache: l2With(get) });
      assert.equal(outcomeOf(await ask(key)), 'allow');
      assert.equal(outcomeOf(await ask(key)), 'allow');
      await gateway.close();
    }
  });
});
