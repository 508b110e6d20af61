/**
 * One transport, in a process of its own, with the handler of a gateway that has everything in L1, or, while it is told so, with
 * one that only has the answer: `handler-server.ts TRANSPORT`. Says its port, and of each credential a request and its answer.
 */
import { systemClock } from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { AuthorizationService } from '@token-gateway/schemas/ext-authz';
import { Authority } from '../services/gateway/src/authority.testing.ts';
import { createGateway } from '../services/gateway/src/gateway.ts';
import { createExtAuthzHandler } from '../services/gateway/src/transports/ext-authz.ts';
import { type GrpcTransport, serveUnary } from '../services/gateway/src/transports/grpc-server.ts';
import { collectYoungObjectsEarly } from '../services/gateway/src/young-generation.ts';
import { apiKeyOf } from './api-keys.ts';
import { checkRequest, tokenOf } from './ext-authz-client.ts';

collectYoungObjectsEarly();
const [transport = ''] = process.argv.slice(2);
const hourMs = 3_600_000;
const issuer = 'https://provider.example.com';
const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
const groups = Array.from({ length: 16 }, (_, at) => `group-${at}`);
const expiresAt = Math.floor((Date.now() + hourMs) / 1000);
/** As long as those of ES256. */
const signature = 'A'.repeat(86);
const jwtOf = (claims: object) => `${part({ alg: 'ES256', kid: 'k'.repeat(43) })}.${part(claims)}.${signature}`;
const internalToken = jwtOf({
  iss: 'https://tokens.example.com',
  sub: 'u'.repeat(36),
  exp: expiresAt,
  groups,
  jti: 'j'.repeat(36),
});

const telemetry = createSilentTelemetry();
const deps = { ...telemetry, clock: systemClock, random: Math.random };
const authority = new Authority(Date.now);
authority.issuers.add(issuer);
authority.maxStalenessMs = hourMs;
authority.tokenLifeMs = hourMs;
authority.alter = (result) => (result.outcome === 'granted' ? { ...result, token: internalToken } : result);
const { identity, exchange } = authority;
const gateway = createGateway(
  { ...deps, identity, exchange, tokenCache: null, usedProofs: null, signals: [] },
  { audience: 'internal', fleetSecret: Buffer.alloc(32, 1), longestLifeMs: hourMs },
);
gateway.start();
const handle = createExtAuthzHandler({ decide: gateway.decide, ...telemetry }, { removeHeaders: [] });

const requests = {
  'API key': checkRequest(`Token ${apiKeyOf(1)}`),
  JWT: checkRequest(
    `Bearer ${jwtOf({ iss: issuer, aud: 'api', sub: 'somebody', exp: expiresAt, groups, email: 'somebody@example.com' })}`,
  ),
};
const answers = new Map<string, Uint8Array>();
for (const [name, request] of Object.entries(requests)) {
  // The first one fills L1.
  await handle(request);
  const answer = Buffer.from(await handle(request));
  tokenOf(answer);
  answers.set(name, answer);
}

let prebuilt: Uint8Array | null = null;
const { port } = await serveUnary(
  transport as GrpcTransport,
  deps,
  { path: AuthorizationService.check.path, handle: (bytes) => prebuilt ?? handle(bytes) },
  { host: '127.0.0.1', port: 0 },
);
/** The credential whose answer is given without a look at the request, or null. */
process.on('message', (name: string | null) => {
  prebuilt = name === null ? null : (answers.get(name) ?? null);
  process.send?.('done');
});
process.on('disconnect', () => process.exit());
process.send?.({
  port,
  calls: Object.entries(requests).map(([name, request]) => ({ name, request, answer: answers.get(name) })),
});
