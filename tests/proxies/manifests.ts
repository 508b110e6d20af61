/** Judges the manifests of `deploy/` by what reads them, a Go program that is built once, and definitions in Go modules. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { globSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { install, installGo } from '../parts/native-install.ts';

const run = promisify(execFile);
const source = join(import.meta.dirname, 'manifests');

/** No package of it is used, so it has no place in go.mod. */
const envoyGateway = {
  module: 'github.com/envoyproxy/gateway@v1.8.2',
  sum: 'h1:d742/gq9RkWXH1t6NBtQlRi9AVvheOC2GPwqfzSZH9c=',
};

export type ManifestKind = 'custom-resources' | 'istio-mesh-config' | 'consul-config-entry';

export interface Judge {
  /** Resolves to what is wrong with it; null when nothing is. */
  fault(kind: ManifestKind, file: string): Promise<string | null>;
}

/** Rejects where Go or its modules cannot be had. */
export async function openJudge(): Promise<Judge> {
  const go = await installGo();
  const environment = { ...process.env, CGO_ENABLED: '0', GOTOOLCHAIN: 'local', GOFLAGS: '-mod=readonly' };
  const options = { cwd: source, env: environment };
  const hash = createHash('sha256');
  for (const file of readdirSync(source)) hash.update(readFileSync(join(source, file)));
  const folder = await install(`manifests-${hash.digest('hex').slice(0, 12)}`, async (target) => {
    await run(go, ['build', '-o', join(target, 'manifests'), '.'], options);
  });
  const download = async (module: string): Promise<{ Dir: string; Sum: string }> =>
    JSON.parse((await run(go, ['mod', 'download', '-json', module], options)).stdout);
  const istio = await download('istio.io/api');
  const gateway = await download(envoyGateway.module);
  assert.equal(gateway.Sum, envoyGateway.sum);
  const definitions = [
    join(istio.Dir, 'kubernetes/customresourcedefinitions.gen.yaml'),
    ...globSync(join(gateway.Dir, 'charts/gateway-crds-helm/templates/generated/*.yaml')),
  ];
  return {
    async fault(kind, file) {
      try {
        await run(join(folder, 'manifests'), [kind, file, ...definitions]);
        return null;
      } catch (error) {
        return (error as { stderr?: string }).stderr ?? String(error);
      }
    },
  };
}
