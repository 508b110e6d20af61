/**
 * Gateways that others make, when their programs are there: each asked by ext_authz with the same request, which is a JWT of a
 * provider, that they verify as they do.
 */
import { spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Issuer } from '../tests/system/issuer.ts';
import { freePorts } from '../tests/system/service-process.ts';
import type { Server } from './gateway-process.ts';
import { pin } from './gateway-process.ts';

const host = '127.0.0.1';

/** heimdall 0.17 by its program: it verifies the JWT, and hands out an internal token, which it keeps. */
export async function startHeimdall(stack: AsyncDisposableStack, program: string, issuer: Issuer): Promise<Server> {
  const folder = await folderOf(stack);
  const [port = 0, management = 0] = await freePorts(2);
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const keys = join(folder, 'keys.pem');
  await writeFile(keys, privateKey.export({ type: 'pkcs8', format: 'pem' }));
  const rules = join(folder, 'rules.yaml');
  await writeFile(
    rules,
    JSON.stringify({
      version: '1alpha4',
      name: 'bench',
      rules: [
        {
          id: 'orders',
          match: { routes: [{ path: '/orders/:id' }], methods: ['GET'] },
          execute: [{ authenticator: 'provider' }, { finalizer: 'internal' }],
        },
      ],
    }),
  );
  const config = join(folder, 'heimdall.yaml');
  await writeFile(
    config,
    JSON.stringify({
      serve: { host, port },
      management: { host, port: management },
      log: { level: 'error' },
      metrics: { enabled: false },
      tracing: { enabled: false },
      cache: { type: 'in-memory' },
      mechanisms: {
        authenticators: [
          {
            id: 'provider',
            type: 'jwt',
            config: {
              jwks_endpoint: { url: `${issuer.issuer}/jwks` },
              assertions: { issuers: [issuer.issuer], audience: ['api'], allowed_algorithms: ['RS256'] },
            },
          },
        ],
        finalizers: [{ id: 'internal', type: 'jwt', config: { ttl: '5m', signer: { key_store: { path: keys } } } }],
      },
      providers: { file_system: { src: rules } },
    }),
  );
  return start(stack, program, ['serve', 'decision', '--envoy-grpc', '--insecure', '-c', config], port);
}

/** OPA with its plugin for Envoy: it verifies the JWT, and answers with a header that it has. */
export async function startOpa(stack: AsyncDisposableStack, program: string, issuer: Issuer): Promise<Server> {
  const folder = await folderOf(stack);
  const [port = 0, api = 0, diagnostics = 0] = await freePorts(3);
  const policy = join(folder, 'policy.rego');
  await writeFile(
    policy,
    `package envoy.authz
import rego.v1
default allow := false
token := trim_prefix(input.attributes.request.http.headers.authorization, "Bearer ")
verified := io.jwt.decode_verify(token, {"cert": ${JSON.stringify(JSON.stringify({ keys: [issuer.publicJwk()] }))}, "iss": "${issuer.issuer}", "aud": "api"})
allow := {"allowed": true, "headers": {"authorization": sprintf("Bearer %s", [verified[2].sub])}} if verified[0]
`,
  );
  return start(
    stack,
    program,
    [
      ...['run', '--server', '--addr', `${host}:${api}`, '--diagnostic-addr', `${host}:${diagnostics}`],
      ...['--log-level', 'error', '--skip-version-check', '--set', `plugins.envoy_ext_authz_grpc.addr=${host}:${port}`],
      ...['--set', 'plugins.envoy_ext_authz_grpc.path=envoy/authz/allow', policy],
    ],
    port,
  );
}

async function folderOf(stack: AsyncDisposableStack): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'token-gateway-peer-'));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function start(
  stack: AsyncDisposableStack,
  program: string,
  options: readonly string[],
  port: number,
): Promise<Server> {
  const child = spawn(program, options, { stdio: ['ignore', 'ignore', 'inherit'], env: { GOMAXPROCS: '1' } });
  stack.defer(() => void child.kill());
  if (child.pid === undefined) throw new Error(`${program} did not start`);
  await pin(child.pid, 1);
  return { pid: child.pid, port };
}
