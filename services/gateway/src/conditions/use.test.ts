/** Conditions of a decision, held against every use of it at gateways that share what proofs were used. */
import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { suite, test } from 'node:test';
import {
  createMemorySingleUse,
  createMemoryTokenCache,
  type SingleUse,
  type TokenCache,
} from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { tenantSubject } from '@token-gateway/revocation';
import { Authority } from '../authority.testing.ts';
import type { DecisionRequest } from '../decision/decision.ts';
import { createGateway } from '../gateway.ts';
import type { RuledDecision } from '../rules/rules.ts';
import { requestOfEnvoy } from '../transports/check-request.testing.ts';
import type { Conditions } from './conditions.ts';
import { type ConditionsConfig, defaultConditionsConfig, PresentedOnce, proofLifeMs } from './presentation.ts';
import { createProofHolder } from './proof.testing.ts';

const issuer = 'https://provider.example.com';
const holder = await createProofHolder();
const thief = await createProofHolder();

interface Options {
  readonly conditions?: Conditions | null;
  readonly config?: Partial<ConditionsConfig>;
  /** Null = the gateways share nothing. */
  readonly usedProofs?: SingleUse | null;
  readonly shareL2?: boolean;
}

/** Two gateways, started long enough ago to be sure which proofs were used. */
async function fleet(options: Options = {}) {
  const clock = createTestClock();
  const authority = new Authority(() => clock.now().wallMs);
  authority.issuers.add(issuer);
  authority.tokenLifeMs = 3_600_000;
  const { conditions = { jkt: holder.jkt } } = options;
  authority.alter = (result) => (result.outcome === 'granted' ? { ...result, conditions } : result);
  const { usedProofs = createMemorySingleUse({ clock, lifeMs: proofLifeMs }) } = options;
  const tokenCache: TokenCache | null = options.shareL2 === true ? createMemoryTokenCache({ clock }) : null;
  const start = () =>
    createGateway(
      {
        ...createSilentTelemetry(),
        identity: authority.identity,
        exchange: authority.exchange,
        tokenCache,
        usedProofs,
        signals: [],
        clock,
        random: () => 0.5,
      },
      {
        audience: 'internal',
        fleetSecret: Buffer.alloc(32, 1),
        conditions: { ...defaultConditionsConfig, ...options.config },
        longestLifeMs: 3_600_000,
      },
    );
  const gateways = [start(), start()] as const;
  for (const gateway of gateways) gateway.start();
  await clock.advance(proofLifeMs);
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const exp = Math.floor(clock.now().wallMs / 1000) + 3600;
  const token = `${part({ alg: 'ES256' })}.${part({ iss: issuer, exp })}.c2ln`;
  return {
    clock,
    authority,
    gateways,
    token,
    nowMs: () => clock.now().wallMs,
    prove: (claims?: Record<string, unknown>, by = holder) => by.prove({ token, nowMs: clock.now().wallMs }, claims),
    async close() {
      await Promise.all(gateways.map((gateway) => gateway.close()));
    },
  };
}

type Fleet = Awaited<ReturnType<typeof fleet>>;
type More = Partial<Omit<DecisionRequest, 'header'>>;

function ask(
  { gateways }: Fleet,
  at: 0 | 1,
  authorization: string,
  dpop: readonly string[] = [],
  more: More = {},
): RuledDecision | Promise<RuledDecision> {
  const headers: Readonly<Record<string, readonly string[]>> = { authorization: [authorization], dpop };
  const { decide, decideAgain } = gateways[at];
  const request = { method: 'GET', path: '/orders', scheme: 'https', host: 'api.example.com', ...more };
  if (more.presented === undefined) return decide(asEnvoySends(request, headers));
  return (more.isAgain === true ? decideAgain : decide)({ ...request, header: (name) => headers[name] ?? [] });
}

/** As it is read of ext_authz, where a hit of what has no conditions makes no text of the credential. */
function asEnvoySends(
  { method = '', path = '', scheme = '', host = '', sourceAddress = '', peerCertificate = '' }: More,
  headers: Readonly<Record<string, readonly string[]>>,
) {
  const list = Object.entries(headers).flatMap(([name, values]) => values.map((value) => [name, value] as const));
  const source = { address: { socketAddress: { address: sourceAddress } }, certificate: peerCertificate };
  return requestOfEnvoy(list, { method, path, scheme, host }, source);
}

async function codeOf(decision: RuledDecision | Promise<RuledDecision>): Promise<string> {
  const settled = await decision;
  return 'code' in settled ? settled.code : settled.outcome;
}

async function nonceOf(decision: RuledDecision | Promise<RuledDecision>): Promise<string> {
  const settled = await decision;
  assert.ok(settled.outcome === 'deny' && settled.code === 'proof_nonce_required');
  return settled.dpopNonce ?? assert.fail('no nonce');
}

const isAway: SingleUse = { claim: () => Promise.reject(new Error('away')), close: async () => {} };

suite('a token that is bound to a key', () => {
  test('is accepted with a proof each time, on a miss and on hits', async () => {
    const all = await fleet();
    for (let round = 0; round < 3; round += 1) {
      assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`, [await all.prove()])), 'allow');
    }
    assert.equal(all.authority.exchangeCount, 1);
    await all.close();
  });

  test('needs no second proof for a request that is open, however long, but still the key, and no other request gains by it', async () => {
    const all = await fleet();
    const proof = [await all.prove()];
    const authorization = `DPoP ${all.token}`;
    const open = { presented: new PresentedOnce() };
    assert.equal(await codeOf(ask(all, 0, authorization, proof, open)), 'allow');
    for (const waitMs of [250, proofLifeMs * 2, 3_000_000]) {
      await all.clock.advance(waitMs);
      assert.equal(await codeOf(ask(all, 0, authorization, proof, { ...open, isAgain: true })), 'allow');
    }
    assert.equal(await codeOf(ask(all, 0, authorization, proof)), 'proof_stale');
    assert.equal(await codeOf(ask(all, 0, authorization, [], { presented: new PresentedOnce() })), 'proof_required');
    const conditions = { jkt: thief.jkt };
    all.authority.alter = (result) => (result.outcome === 'granted' ? { ...result, conditions } : result);
    await all.clock.advance(3_600_000);
    const late = ask(all, 0, authorization, proof, { ...open, isAgain: true });
    assert.notEqual(await codeOf(late), 'allow');
    await all.close();
  });

  for (const isWarm of [false, true]) {
    const when = isWarm ? 'on a hit' : 'on a miss';

    test(`is refused ${when}: as bearer token, and without a proof`, async () => {
      const all = await fleet();
      if (isWarm) await ask(all, 0, `DPoP ${all.token}`, [await all.prove()]);
      assert.equal(await codeOf(ask(all, 0, `Bearer ${all.token}`)), 'proof_required');
      assert.equal(await codeOf(ask(all, 0, `Bearer ${all.token}`, [await all.prove()])), 'proof_required');
      assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`)), 'proof_required');
      assert.equal(await codeOf(ask(all, 0, `dpop ${all.token}`, [await all.prove()])), 'allow');
      assert.equal(all.authority.exchangeCount, 1, 'what is refused costs the auth server nothing twice');
      await all.close();
    });

    test(`is refused ${when}: with a replayed proof, at the same gateway and at another`, async () => {
      const all = await fleet();
      if (isWarm) for (const at of [0, 1] as const) await ask(all, at, `DPoP ${all.token}`, [await all.prove()]);
      const proof = await all.prove();
      assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`, [proof])), 'allow');
      assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`, [proof])), 'proof_replayed');
      assert.equal(await codeOf(ask(all, 1, `DPoP ${all.token}`, [proof])), 'proof_replayed');
      const both = await all.prove();
      const codes = await Promise.all(([0, 1] as const).map((at) => codeOf(ask(all, at, `DPoP ${all.token}`, [both]))));
      assert.deepEqual(codes.toSorted(), ['allow', 'proof_replayed'], 'at once');
      await all.close();
    });

    test(`is refused ${when}: with the proof of another key, request or time, or with two proofs`, async () => {
      const all = await fleet();
      if (isWarm) await ask(all, 0, `DPoP ${all.token}`, [await all.prove()]);
      const stale = Math.floor(all.nowMs() / 1000) - 61;
      const proofs: [string, string[]][] = [
        ['proof_mismatch', [await all.prove({}, thief)]],
        ['proof_mismatch', [await all.prove({ htm: 'POST' })]],
        ['proof_mismatch', [await all.prove({ htu: 'https://api.example.com/other' })]],
        ['proof_mismatch', [await all.prove({ ath: hash('sha256', 'other', 'base64url') })]],
        ['proof_stale', [await all.prove({ iat: stale })]],
        ['proof_invalid', [await all.prove(), await all.prove()]],
        ['proof_invalid', [`${await all.prove()},${await all.prove()}`]],
        ['proof_nonce_required', [await all.prove({ nonce: 'forged' })]],
      ];
      for (const [code, proof] of proofs) assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`, proof)), code);
      const elsewhere = { host: 'other.example.com' };
      assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`, [await all.prove()], elsewhere)), 'proof_mismatch');
      assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`, [await all.prove()])), 'allow');
      await all.close();
    });
  }

  test('is exchanged again before its decision ends for a use with a proof, and for none without', async () => {
    const all = await fleet();
    all.authority.tokenLifeMs = 300_000;
    await ask(all, 0, `DPoP ${all.token}`, [await all.prove()]);
    await all.clock.advance(250_000);
    assert.equal(await codeOf(ask(all, 0, `Bearer ${all.token}`)), 'proof_required');
    await all.clock.advance(0);
    assert.equal(all.authority.exchangeCount, 1);
    assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`, [await all.prove()])), 'allow');
    await all.clock.advance(0);
    assert.equal(all.authority.exchangeCount, 2);
    await all.close();
  });

  test('is refused as bearer token by a gateway that read it from L2', async () => {
    const all = await fleet({ shareL2: true });
    await ask(all, 0, `DPoP ${all.token}`, [await all.prove()]);
    assert.equal(await codeOf(ask(all, 1, `Bearer ${all.token}`)), 'proof_required');
    assert.equal(await codeOf(ask(all, 1, `DPoP ${all.token}`, [await all.prove()])), 'allow');
    assert.equal(all.authority.exchangeCount, 1);
    await all.close();
  });

  test('is refused when it was revoked while the proof was being claimed', async () => {
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    let isHeld = false;
    const usedProofs: SingleUse = {
      async claim() {
        if (isHeld) await held;
        return 'first';
      },
      close: async () => {},
    };
    const all = await fleet({ usedProofs });
    await ask(all, 0, `DPoP ${all.token}`, [await all.prove()]);
    isHeld = true;
    const decision = ask(all, 0, `DPoP ${all.token}`, [await all.prove()]);
    all.authority.disable('');
    await all.clock.advance(300);
    release();
    assert.equal(await codeOf(decision), 'user_disabled');
    await all.close();
  });

  test('is accepted behind a proxy that ends TLS when that is configured', async () => {
    const plain = { scheme: 'http' };
    const all = await fleet({ config: { externalScheme: 'https' } });
    assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`, [await all.prove()], plain)), 'allow');
    await all.close();
    const other = await fleet();
    assert.equal(await codeOf(ask(other, 0, `DPoP ${other.token}`, [await other.prove()], plain)), 'proof_mismatch');
    await other.close();
  });

  test('needs a nonce where that is configured; one of any gateway does', async () => {
    const all = await fleet({ config: { requireNonce: true } });
    const nonce = await nonceOf(ask(all, 0, `DPoP ${all.token}`, [await all.prove()]));
    assert.equal(await codeOf(ask(all, 1, `DPoP ${all.token}`, [await all.prove({ nonce })])), 'allow');
    await all.clock.advance(61_000);
    await nonceOf(ask(all, 1, `DPoP ${all.token}`, [await all.prove({ nonce })]));
    await all.close();
  });
});

suite('while it is not known which proofs other gateways saw', () => {
  const cases: Record<string, SingleUse | null> = {
    'there is nothing shared': null,
    'what is shared does not answer': isAway,
    'it has not remembered for long enough': { claim: async () => 'unsure', close: async () => {} },
  };
  for (const [name, usedProofs] of Object.entries(cases)) {
    test(`a proof is good at the gateway that made its nonce, and once: ${name}`, async () => {
      const all = await fleet({ usedProofs });
      const nonce = await nonceOf(ask(all, 0, `DPoP ${all.token}`, [await all.prove()]));
      const proof = await all.prove({ nonce });
      assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`, [proof])), 'allow');
      assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`, [proof])), 'proof_replayed');
      assert.equal(await codeOf(ask(all, 1, `DPoP ${all.token}`, [proof])), 'proof_nonce_required');
      await all.close();
    });
  }

  test('a proof that another gateway accepted before is refused', async () => {
    const known = new Set<string>();
    let isGone = false;
    const usedProofs: SingleUse = {
      async claim(key) {
        if (isGone) throw new Error('gone');
        return known.size === known.add(key).size ? 'again' : 'first';
      },
      close: async () => {},
    };
    const all = await fleet({ usedProofs });
    const proof = await all.prove();
    assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`, [proof])), 'allow');
    isGone = true;
    assert.equal(await codeOf(ask(all, 1, `DPoP ${all.token}`, [proof])), 'proof_nonce_required');
    await all.close();
  });
});

suite('a token that is bound to no key', () => {
  test('is refused with the DPoP scheme, on a miss and on a hit, and accepted as bearer token', async () => {
    const all = await fleet({ conditions: null });
    assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`, [await all.prove()])), 'proof_unexpected');
    assert.equal(await codeOf(ask(all, 0, `Bearer ${all.token}`)), 'allow');
    assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`, [await all.prove()])), 'proof_unexpected');
    await all.close();
  });

  test('is decided on a hit without a promise', async () => {
    const all = await fleet({ conditions: null });
    await ask(all, 0, `Bearer ${all.token}`);
    assert.equal(ask(all, 0, `Bearer ${all.token}`) instanceof Promise, false);
    await all.close();
  });
});

suite('a token that is bound to a certificate', () => {
  const der = Buffer.from('3082', 'hex');
  const certificate = hash('sha256', der, 'base64url');
  const pemOf = (bytes: Buffer) =>
    encodeURIComponent(`-----BEGIN CERTIFICATE-----\n${bytes.toString('base64')}\n-----END CERTIFICATE-----\n`);

  test('is accepted on the connection of that certificate alone, and without a promise on a hit', async () => {
    const all = await fleet({ conditions: { x5t_s256: certificate }, config: { clientCertificate: 'peer' } });
    const own = { peerCertificate: pemOf(der) };
    for (let round = 0; round < 2; round += 1) {
      assert.equal(await codeOf(ask(all, 0, `Bearer ${all.token}`, [], own)), 'allow');
      assert.equal(await codeOf(ask(all, 0, `Bearer ${all.token}`)), 'certificate_required');
      const other = { peerCertificate: pemOf(Buffer.from('3083', 'hex')) };
      assert.equal(await codeOf(ask(all, 0, `Bearer ${all.token}`, [], other)), 'certificate_required');
    }
    assert.equal(ask(all, 0, `Bearer ${all.token}`, [], own) instanceof Promise, false);
    await all.close();
  });

  test('and to a key needs both', async () => {
    const all = await fleet({
      conditions: { x5t_s256: certificate, jkt: holder.jkt },
      config: { clientCertificate: 'peer' },
    });
    const own = { peerCertificate: pemOf(der) };
    assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`, [await all.prove()], own)), 'allow');
    assert.equal(await codeOf(ask(all, 0, `DPoP ${all.token}`, [await all.prove()])), 'certificate_required');
    assert.equal(await codeOf(ask(all, 0, `Bearer ${all.token}`, [], own)), 'proof_required');
    await all.close();
  });
});

suite('a credential that is bound to networks', () => {
  test('is accepted from there alone, on a miss and on hits, without a promise on a hit', async () => {
    const all = await fleet({ conditions: { cidrs: ['192.0.2.0/24', '2001:db8::/32'] } });
    const own = { sourceAddress: '::ffff:192.0.2.1' };
    for (let round = 0; round < 2; round += 1) {
      assert.equal(
        await codeOf(ask(all, 0, `Bearer ${all.token}`, [], { sourceAddress: '192.0.3.1' })),
        'address_not_allowed',
      );
      assert.equal(await codeOf(ask(all, 0, `Bearer ${all.token}`)), 'address_not_allowed');
      assert.equal(await codeOf(ask(all, 0, `Bearer ${all.token}`, [], own)), 'allow');
    }
    assert.equal(ask(all, 0, `Bearer ${all.token}`, [], own) instanceof Promise, false);
    await all.close();
  });

  test('is held to that while its request is open', async () => {
    const all = await fleet({ conditions: { cidrs: ['192.0.2.0/24'] } });
    const open = { sourceAddress: '192.0.2.1', presented: new PresentedOnce() };
    assert.equal(await codeOf(ask(all, 0, `Bearer ${all.token}`, [], open)), 'allow');
    assert.equal(await codeOf(ask(all, 0, `Bearer ${all.token}`, [], { ...open, isAgain: true })), 'allow');
    all.authority.alter = (result) =>
      result.outcome === 'granted' ? { ...result, conditions: { cidrs: ['198.51.100.0/24'] } } : result;
    all.authority.log.append([tenantSubject('t')], 'tg.tenant.changed');
    await all.clock.advance(1000);
    assert.equal(
      await codeOf(ask(all, 0, `Bearer ${all.token}`, [], { ...open, isAgain: true })),
      'address_not_allowed',
    );
    await all.close();
  });
});
