import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:http2';
import { after, before, beforeEach, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { credentials } from '@grpc/grpc-js';
import { errorEntry, errorTable, isErrorCode, systemClock } from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { AuthorizationClient, CheckRequest, CheckResponse } from '@token-gateway/schemas/ext-authz';
import { defaultCredentialConfig, findCredential, isWellFormed } from '../decision/credential.ts';
import { parseRules } from '../rules/file.ts';
import { createDecideByRules, type DecideByRules, type RuledDecision, type RuledRequest } from '../rules/rules.ts';
import { createExtAuthzServer, type ExtAuthzConfig } from './ext-authz.ts';
import { grpcTransports, type TransportServer } from './grpc-server.ts';

/** Allows whatever has one credential of the right form. */
const allowOne: DecideByRules = (request) => {
  const found = findCredential((name) => request.header(name), defaultCredentialConfig);
  if ('refused' in found) return { outcome: 'deny', code: found.refused };
  if (!isWellFormed(found.value)) return { outcome: 'deny', code: 'credential_malformed' };
  return { outcome: 'allow', token: 'internal', kind: found.kind, headers: [['authorization', 'Bearer internal']] };
};
let decide: DecideByRules = allowOne;

const deps = { decide: (request: RuledRequest) => decide(request), clock: systemClock, random: () => 0.5 };
const config = { host: '127.0.0.1', port: 0, removeHeaders: ['X-Role', 'x-company-*'] };

const serve = (more: Partial<ExtAuthzConfig>): Promise<TransportServer> =>
  createExtAuthzServer({ ...deps, ...createSilentTelemetry() }, { grpcTransport: 'grpc-unary', ...config, ...more });

let server: TransportServer;
let client: AuthorizationClient;

beforeEach(() => {
  decide = allowOne;
});

const call = promisify((request: CheckRequest, done: (error: Error | null, response: CheckResponse) => void) =>
  client.check(request, done),
);

type Http = NonNullable<NonNullable<NonNullable<CheckRequest['attributes']>['request']>['http']>;

function check(http: Partial<Http>, contextExtensions: Record<string, string> = {}): Promise<CheckResponse> {
  return call(
    CheckRequest.fromPartial({
      attributes: { request: { http: { method: 'GET', path: '/', ...http } }, contextExtensions },
    }),
  );
}

function raw(headers: readonly (readonly [string, string])[]): Partial<Http> {
  const list = headers.map(([key, value]) => ({ key, value: '', rawValue: Buffer.from(value, 'latin1') }));
  return { headerMap: { headers: list } };
}

function allowed(response: CheckResponse) {
  assert.equal(response.status?.code, 0);
  assert.equal(response.httpResponse?.$case, 'okResponse');
  return response.httpResponse.value;
}

function denied(response: CheckResponse) {
  assert.notEqual(response.status?.code, 0);
  assert.equal(response.httpResponse?.$case, 'deniedResponse');
  const { status, headers, body } = response.httpResponse.value;
  return {
    grpc: response.status?.code,
    http: status?.code,
    headers: Object.fromEntries(headers.map(({ header }) => [header?.key, header?.value])),
    problem: JSON.parse(body) as unknown,
  };
}

/** The code a decision sees, whatever the transport made of the request. */
async function codeOf(http: Partial<Http>): Promise<unknown> {
  const { problem } = denied(await check(http));
  return (problem as { code: unknown }).code;
}

for (const grpcTransport of grpcTransports)
  describe(`ext_authz by ${grpcTransport}`, () => {
    before(async () => {
      server = await serve({ grpcTransport });
      client = new AuthorizationClient(`127.0.0.1:${server.port}`, credentials.createInsecure());
    });
    after(async () => {
      client.close();
      await server.close();
    });

    it('overwrites the credential with the internal token', async () => {
      const ok = allowed(await check({ headers: { authorization: 'Token key' } }));
      assert.equal(ok.headers.length, 1);
      assert.deepEqual(ok.headers[0]?.header?.value, 'Bearer internal');
      assert.equal(ok.headers[0]?.append, false);
      assert.equal(ok.headersToRemove.includes('authorization'), false);
    });

    it('tells the caller what is left of a quota, beside what the upstream says, and when to come again', async () => {
      const limits = [
        ['ratelimit-policy', '"key";q=10;w=60'],
        ['ratelimit', '"key";r=9;t=6'],
      ] as const;
      const granted = {
        outcome: 'allow',
        token: 'internal',
        kind: 'api-key',
        headers: [['authorization', 'a']],
      } as const;
      decide = () => ({ ...granted, answerHeaders: limits });
      for (const forged of [{}, { 'x-user': '1' }]) {
        const { headers, headersToRemove, responseHeadersToAdd } = allowed(await check({ headers: forged }));
        assert.deepEqual(
          responseHeadersToAdd.map(({ header, append }) => [header?.key, header?.value, append]),
          limits.map((each) => [...each, true]),
        );
        assert.equal(headers[0]?.header?.value, 'a');
        assert.deepEqual(headersToRemove, ['x-api-key', ...Object.keys(forged)]);
      }
      decide = () => ({ outcome: 'deny', code: 'quota_exceeded', answerHeaders: [['retry-after', '6'], ...limits] });
      const { http, grpc, headers } = denied(await check({}));
      assert.deepEqual([http, grpc, headers['retry-after'], headers['ratelimit']], [429, 8, '6', '"key";r=9;t=6']);
    });

    it('has forged identity headers removed, however they are written, and the API-key header', async () => {
      const forged = [
        'x-forwarded-user',
        'X-User',
        'x-user-id',
        'x_user_id',
        'x.auth.subject',
        'X-Tenant',
        'x-tenant_id',
        'x~tenant',
      ];
      const configured = ['x-role', 'X_Company_Id'];
      const honest = ['accept', 'x-request-id', 'x-roles', 'x-forwarded-for'];
      const headers = [...forged, ...configured, ...honest].map((name) => [name, '1'] as const);
      for (const form of [{ headers: Object.fromEntries(headers) }, raw(headers)]) {
        const withKey = form.headerMap
          ? raw([...headers, ['x-api-key', 'key']])
          : { headers: { ...form.headers, 'x-api-key': 'key' } };
        const removed = allowed(await check(withKey)).headersToRemove;
        const expected = [...forged, ...configured, 'x-api-key'].map((name) => name.toLowerCase());
        assert.deepEqual(removed.toSorted(), expected.toSorted());
      }
    });

    describe('with rules', () => {
      const rules = parseRules(
        'rules: [{ name: a, paths: [/**], tokenHeader: { name: X-Token }, claimHeaders: { x-subject: sub } }]',
      );
      let ruled: TransportServer;
      before(async () => {
        ruled = await createExtAuthzServer(
          { ...deps, rules: () => rules, ...createSilentTelemetry() },
          { grpcTransport, ...config },
        );
      });
      after(() => ruled.close());

      async function decided(decision: RuledDecision, headers: Record<string, string>) {
        decide = () => decision;
        const asking = new AuthorizationClient(`127.0.0.1:${ruled.port}`, credentials.createInsecure());
        try {
          const request = CheckRequest.fromPartial({
            attributes: { request: { http: { method: 'GET', path: '/', headers } } },
          });
          const asked = promisify((done: (error: Error | null, response: CheckResponse) => void) =>
            asking.check(request, done),
          );
          const { headers: given, headersToRemove } = allowed(await asked());
          return {
            given: given.map(({ header }) => [header?.key, header?.value]),
            removed: headersToRemove.toSorted(),
          };
        } finally {
          asking.close();
        }
      }

      it('takes off what a client sent under the name of a header of theirs, and the credential', async () => {
        const headers = [['x-token', 'internal']] as const;
        assert.deepEqual(
          await decided(
            { outcome: 'allow', kind: 'jwt', token: 'internal', headers },
            { authorization: 'Bearer a', x_subject: 'forged', 'x-token': 'forged' },
          ),
          { given: [['x-token', 'internal']], removed: ['authorization', 'x-api-key', 'x-subject', 'x_subject'] },
        );
      });

      it('takes off every credential and every such header on a public path', async () => {
        assert.deepEqual(
          await decided({ outcome: 'public' }, { authorization: 'Bearer a', 'x-user': 'forged', a: 'b' }),
          {
            given: [],
            removed: ['authorization', 'x-api-key', 'x-subject', 'x-token', 'x-user'],
          },
        );
      });
    });

    it('decides by rules of what Envoy says of the request', async () => {
      const rules = parseRules(
        'rules: [{ name: a, hosts: [a.example], paths: ["/a/{id}"], methods: [POST], access: public }]',
      );
      const ruled = createDecideByRules({
        decideAnonymously: () => assert.fail('nothing is anonymous here'),
        decide: () => ({ outcome: 'deny', code: 'credential_missing' }),
        rules: () => rules,
        onRuled: () => undefined,
      });
      decide = ruled;
      allowed(await check({ method: 'POST', path: '/a/1?b', host: 'a.example' }));
      assert.equal(denied(await check({ method: 'POST', path: '/a', host: 'a.example' })).http, 401);
      assert.equal(denied(await check({ method: 'POST', path: '/a/1', host: 'b.example' })).http, 401);
      assert.equal(denied(await check({ method: 'GET', path: '/a/1', host: 'a.example' })).http, 405);
      assert.equal(denied(await check({ method: 'POST', path: '/a//1', host: 'a.example' })).http, 400);
    });

    it('tells what Envoy says of the route, and refuses what is none', async () => {
      let seen: RuledRequest | undefined;
      decide = (request) => {
        seen = request;
        return allowOne(request);
      };
      const headers = { authorization: 'Token a' };
      allowed(await check({ headers }, { audience: 'orders', scopes: 'a b', access: 'token' }));
      assert.deepEqual([seen?.audience, seen?.route], ['orders', { scopes: ['a', 'b'], access: 'token' }]);
      assert.equal(denied(await check({ headers }, { access: 'open' })).http, 503);
    });

    it('takes the proof off the request', async () => {
      const ok = allowed(await check({ headers: { authorization: 'DPoP a.b.c', dpop: 'd.e.f', DPoP_: 'x' } }));
      assert.ok(ok.headersToRemove.includes('dpop'));
    });

    it('tells where a request was sent, where it came from, and by whose certificate', async () => {
      let seen: RuledRequest | undefined;
      decide = (request) => {
        seen = request;
        return { outcome: 'deny', code: 'proof_nonce_required', dpopNonce: 'nonce' };
      };
      const response = await call(
        CheckRequest.fromPartial({
          attributes: {
            source: { address: { socketAddress: { address: '192.0.2.1', portValue: 1 } }, certificate: 'pem' },
            request: { http: { method: 'GET', path: '/', scheme: 'https', host: 'api.example.com' } },
          },
        }),
      );
      const { scheme, host, sourceAddress, peerCertificate } = seen ?? assert.fail('not asked');
      assert.deepEqual(
        [scheme, host, sourceAddress, peerCertificate],
        ['https', 'api.example.com', '192.0.2.1', 'pem'],
      );
      const { http, headers } = denied(response);
      assert.equal(http, 401);
      assert.equal(headers['dpop-nonce'], 'nonce');
      assert.match(
        headers['www-authenticate'] ?? '',
        /^DPoP realm="token-gateway", error="use_dpop_nonce", algs="ES256 /,
      );
    });

    it('refuses two credentials and two values of one header, joined or apart', async () => {
      const requests = [
        { headers: { authorization: 'Token a,Token b' } },
        { headers: { authorization: 'Token a', 'x-api-key': 'b' } },
        raw([
          ['authorization', 'Token a'],
          ['Authorization', 'Token b'],
        ]),
        raw([
          ['x-api-key', 'a'],
          ['authorization', 'Bearer b'],
        ]),
      ];
      for (const request of requests) assert.equal(await codeOf(request), 'credential_ambiguous');
    });

    it('passes bytes on as they came: what is not UTF-8 is refused, and so is a header of 64 KiB', async () => {
      let seen: readonly string[] = [];
      decide = (request) => {
        seen = request.header('authorization');
        return allowOne(request);
      };
      assert.equal(await codeOf(raw([['authorization', 'Token \xff\xfe']])), 'credential_refused');
      assert.deepEqual(seen, ['Token \xff\xfe']);
      await codeOf({ headers: { authorization: 'Token \u00e9' } });
      assert.deepEqual(seen, ['Token \xc3\xa9']);
      assert.equal(await codeOf({ headers: { authorization: `Token ${'a'.repeat(65_536)}` } }), 'credential_too_large');
    });

    it('takes method, path and the audience of the route as they were sent', async () => {
      let seen: RuledRequest | null = null;
      decide = (request) => {
        seen = request;
        return allowOne(request);
      };
      await check(
        { method: 'POST', path: '/a%2f?b\x01', headers: { authorization: 'Token a' } },
        { audience: 'orders' },
      );
      const { method, path, audience } = seen ?? assert.fail();
      assert.deepEqual({ method, path, audience }, { method: 'POST', path: '/a%2f?b\x01', audience: 'orders' });
    });

    it('answers every refusal with its status, a problem body and its challenge', async () => {
      for (const code of Object.keys(errorTable).filter(isErrorCode)) {
        decide = async () => ({ outcome: 'deny', code });
        const entry = errorEntry(code);
        const answer = denied(await check({}));
        assert.equal(answer.grpc, entry.grpc);
        assert.equal(answer.http, entry.http);
        assert.equal(answer.headers['content-type'], 'application/problem+json');
        assert.equal(answer.headers['cache-control'], 'no-store');
        assert.equal(answer.headers['www-authenticate'] !== undefined, entry.challenge !== undefined);
      }
    });

    it('answers 503 with Retry-After when nothing can be decided', async () => {
      decide = async () => ({ outcome: 'unavailable', code: 'overloaded', retryAfterSeconds: 3 });
      const answer = denied(await check({}));
      assert.deepEqual([answer.http, answer.grpc, answer.headers['retry-after']], [503, 14, '3']);
    });

    it('never allows when something fails, at once or later', async () => {
      const failures: DecideByRules[] = [
        () => {
          throw new Error('broken');
        },
        () => Promise.reject(new Error('broken')),
      ];
      for (const failing of failures) {
        decide = failing;
        assert.equal(denied(await check({ headers: { authorization: 'Token a' } })).http, 503);
      }
    });

    it('refuses a request without attributes', async () => {
      for (const request of [{}, { attributes: {} }, { attributes: { request: {} } }]) {
        assert.equal(denied(await call(CheckRequest.fromPartial(request))).http, 400);
      }
    });

    it('does not start with a header to remove that is no name', async () => {
      for (const name of ['*', '', 'x-*-id', 'x role']) {
        await assert.rejects(serve({ removeHeaders: [name] }));
      }
    });

    it('refuses TRACE, whose answer would hold the internal token', async () => {
      assert.equal(denied(await check({ method: 'TRACE', headers: { authorization: 'Token a' } })).http, 405);
    });

    /** What a call of these bytes gets: the status of gRPC, and the response if there is one. */
    async function callRaw(bytes: Buffer): Promise<{ status: unknown; response: CheckResponse | null }> {
      const session = connect(`http://127.0.0.1:${server.port}`);
      const stream = session.request({
        ':method': 'POST',
        ':path': '/envoy.service.auth.v3.Authorization/Check',
        'content-type': 'application/grpc',
        te: 'trailers',
      });
      let status: unknown;
      const note = (headers: Record<string, unknown>) => {
        status = headers['grpc-status'] ?? status;
      };
      const chunks: Buffer[] = [];
      stream
        .on('response', note)
        .on('trailers', note)
        .on('data', (chunk: Buffer) => chunks.push(chunk))
        .on('error', () => undefined);
      stream.end(bytes);
      await once(stream, 'close');
      session.destroy();
      const answer = Buffer.concat(chunks).subarray(5);
      return { status, response: answer.length === 0 ? null : CheckResponse.decode(answer) };
    }

    function frame(length: number, message: Buffer): Buffer {
      const head = Buffer.alloc(5);
      head.writeUInt32BE(length, 1);
      return Buffer.concat([head, message]);
    }

    const whole = Buffer.from(CheckRequest.encode(CheckRequest.fromPartial({ attributes: { source: {} } })).finish());

    it('denies what is no message: a gRPC error would pass where failure_mode_allow is set', async () => {
      const messages = [whole.subarray(0, -1), Buffer.from([0x0a, 0xff, 0xff, 0xff]), Buffer.from('GET / HTTP/1.1')];
      for (const message of messages) {
        const { status, response } = await callRaw(frame(message.length, message));
        assert.equal(status, '0');
        assert.equal(denied(response ?? assert.fail()).http, 400);
      }
    });

    it('goes on after truncated frames', async () => {
      for (const bytes of [frame(whole.length, whole.subarray(0, -1)), frame(0xffffffff, whole), Buffer.from([0, 0])]) {
        assert.notEqual((await callRaw(bytes)).status, '0');
      }
      allowed(await check({ headers: { authorization: 'Token a' } }));
    });

    it('goes on after a caller that does not wait', async () => {
      const asked = Promise.withResolvers<void>();
      const held = Promise.withResolvers<void>();
      decide = async (request) => {
        asked.resolve();
        await held.promise;
        return allowOne(request);
      };
      const ended = Promise.withResolvers<void>();
      const abandoned = client.check(CheckRequest.fromPartial({ attributes: { request: { http: {} } } }), () =>
        ended.resolve(),
      );
      await asked.promise;
      abandoned.cancel();
      await ended.promise;
      held.resolve();
      decide = allowOne;
      allowed(await check({ headers: { authorization: 'Token a' } }));
    });
  });
