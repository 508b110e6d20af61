import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, before, it, suite } from 'node:test';
import { decodeJwt, decodeProtectedHeader, type JWK } from 'jose';
import { freePort } from '../parts/free-port.ts';
import { partsSuite } from '../parts/index.ts';
import { call, withToken } from '../system/caller.ts';
import { ServiceProcess, until } from '../system/service-process.ts';
import { type System, startSystem } from '../system/system.ts';
import { exchangeKey } from '../system/token-client.ts';
import { forgeries, misuses } from './attacks.ts';
import { envoyVerifier } from './envoy.ts';
import type { RunningVerifier, Verifier } from './port.ts';
import { programs } from './programs.ts';
import { startTokenIssuer, type TokenIssuer } from './token-issuer.ts';

const audience = 'reports';
const toleranceMs = 5000;

/** A verifier twice: of the real auth server's tokens, and of an issuer's that signs what a test wants. */
interface Running {
  readonly ofSystem: RunningVerifier;
  readonly ofIssuer: RunningVerifier;
}

await partsSuite('resource servers that nobody here wrote', ['postgres', 'envoy'], (parts) => {
  let system: System;
  let issuer: TokenIssuer;
  let userId: string;
  let key: string;
  const verifiers = [envoyVerifier(parts), ...programs];
  const started = new Map<Verifier, Running | Error>();

  before(async () => {
    issuer = await startTokenIssuer();
    system = await startSystem(parts, { gateways: 0, kafka: false, redis: false, triggers: ['watch'], envoy: false });
    ({ userId, key } = await system.admin.tenantFixture());
    for (const verifier of verifiers) started.set(verifier, await start(verifier));
  });
  after(async () => {
    for (const each of started.values()) {
      if (each instanceof Error) continue;
      await each.ofSystem.stop();
      await each.ofIssuer.stop();
    }
    await system?.[Symbol.asyncDispose]();
    await issuer?.[Symbol.asyncDispose]();
  });

  async function start(verifier: Verifier): Promise<Running | Error> {
    try {
      await verifier.prepare();
    } catch (cause) {
      return new Error(`${verifier.name} cannot be had`, { cause });
    }
    const ofSystem = await verifier.start({ issuer: system.authServerUrl, audience });
    return { ofSystem, ofIssuer: await verifier.start({ issuer: issuer.issuer, audience }) };
  }

  /** Where the verifier cannot be had, it fails if `CI` is set, and else is skipped by name. */
  function guarantee(name: string, verifier: Verifier, keep: (running: Running) => Promise<void>): void {
    it(name, async (context) => {
      const running = started.get(verifier);
      if (running === undefined || (running instanceof Error && process.env['CI'])) throw running;
      if (running instanceof Error) context.skip(running.message);
      else await keep(running);
    });
  }

  const internalToken = () => exchangeKey(system, key, audience);
  const statusOf = async (running: RunningVerifier, token: string): Promise<number> =>
    (await call(running.url, withToken(token))).status;
  async function accepts(running: RunningVerifier, token: string): Promise<string> {
    const { status, text } = await call(running.url, withToken(token));
    assert.equal(status, 200, text);
    return text;
  }
  async function refusesAll(running: RunningVerifier, tokens: Readonly<Record<string, string>>): Promise<void> {
    for (const [name, token] of Object.entries(tokens)) {
      const status = await statusOf(running, token);
      assert.ok(status === 401 || status === 403, `${name}: ${status}`);
    }
  }

  suite('on their own', { concurrency: true }, () => {
    for (const verifier of verifiers) {
      suite(verifier.name, () => {
        guarantee('accepts the internal token of an exchange, and knows its user', verifier, async ({ ofSystem }) => {
          assert.equal(await accepts(ofSystem, await internalToken()), userId);
          assert.equal((await call(ofSystem.url)).status, 401, 'nothing at all is no token');
        });

        guarantee('refuses what is made of an internal token without the key', verifier, async ({ ofSystem }) => {
          const asked: string[] = [];
          const attacker = createServer((request, response) => {
            asked.push(request.url ?? '');
            response.end('{"keys":[]}');
          }).listen(0, '127.0.0.1');
          await once(attacker, 'listening');
          const attackerUrl = `http://127.0.0.1:${(attacker.address() as { port: number }).port}`;
          const token = await internalToken();
          const jwks = await (await fetch(`${system.authServerUrl}/.well-known/jwks.json`)).json();
          const jwk = (jwks as { keys: JWK[] }).keys.find(({ kid }) => kid === decodeProtectedHeader(token).kid);
          assert.ok(jwk);
          try {
            await refusesAll(ofSystem, await forgeries(token, jwk, attackerUrl));
          } finally {
            attacker.close();
          }
          assert.deepEqual(asked, [], 'no address in a token was asked');
          await accepts(ofSystem, token);
        });

        guarantee(
          'refuses what its issuer signed as something else, or for another',
          verifier,
          async ({ ofIssuer }) => {
            const now = Math.floor(Date.now() / 1000);
            const claims = { ...decodeJwt(await internalToken()), iss: issuer.issuer, iat: now, exp: now + 300 };
            assert.equal(await accepts(ofIssuer, await issuer.sign(claims)), userId);
            await refusesAll(ofIssuer, await misuses(issuer, claims));
            await accepts(ofIssuer, await issuer.sign(claims));
          },
        );

        guarantee('refuses an internal token as soon as it has ended', verifier, async ({ ofSystem }) => {
          const expiresAt = new Date(Date.now() + 3000).toISOString();
          const ending = await system.admin.createKey(userId, { expiresAt });
          const token = await exchangeKey(system, ending.key, audience);
          await accepts(ofSystem, token);
          const endMs = Number(decodeJwt(token).exp) * 1000;
          await until('it is refused', endMs + toleranceMs + 1000 - Date.now(), async () => {
            return (await statusOf(ofSystem, token)) === 401;
          });
          assert.ok(Date.now() >= endMs, 'and not before');
        });
      });
    }
  });

  suite('when another auth server signs with the same key', () => {
    let ofAnotherIssuer: string;
    let ofAnotherAudience: string;

    before(async () => {
      const port = await freePort();
      const metricsPort = await freePort();
      const other = `http://127.0.0.1:${port}`;
      const environment = { ...system.authServerEnvironment, TG_ISSUER: other, TG_AUTH_SERVER_PORT: String(port) };
      await using process = new ServiceProcess('other', 'services/auth-server/src/main.ts', environment, metricsPort);
      await process.start();
      ofAnotherIssuer = await exchangeKey(system, key, audience, other);
      ofAnotherAudience = await exchangeKey(system, key, 'elsewhere');
      assert.equal(decodeProtectedHeader(ofAnotherIssuer).kid, decodeProtectedHeader(ofAnotherAudience).kid);
    });

    for (const verifier of verifiers) {
      guarantee(`${verifier.name}: refuses its tokens, and those for another service`, verifier, ({ ofSystem }) =>
        refusesAll(ofSystem, { ofAnotherIssuer, ofAnotherAudience }),
      );
    }
  });

  suite('when the signing key was compromised', () => {
    let old: string;
    let renewed: string;

    before(async () => {
      old = await internalToken();
      for (const each of started.values()) if (!(each instanceof Error)) await accepts(each.ofSystem, old);
      await system.admin.call('POST', '/v1/signing-keys/compromise?wait=effective');
      renewed = await internalToken();
      assert.notEqual(decodeProtectedHeader(renewed).kid, decodeProtectedHeader(old).kid);
    });

    for (const verifier of verifiers) {
      guarantee(
        `${verifier.name}: knows the new key soon, and the old one no longer`,
        verifier,
        async ({ ofSystem }) => {
          const elapsedMs = await until('a token of the new key is accepted', verifier.keysKnownWithinMs, async () => {
            return (await statusOf(ofSystem, renewed)) === 200;
          });
          console.log(`  ${verifier.name}: a token of the new key is accepted after ${elapsedMs.toFixed(0)} ms`);
          assert.equal(await statusOf(ofSystem, old), 401);
        },
      );
    }
  });
});
