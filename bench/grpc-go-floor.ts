import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { install, installGo } from '../tests/parts/native-install.ts';

/** The path of the program, which is built once, in `.parts/`. */
export async function buildGoFloor(): Promise<string> {
  const source = join(import.meta.dirname, 'grpc-go-floor');
  const hash = createHash('sha256');
  for (const file of readdirSync(source)) hash.update(readFileSync(join(source, file)));
  const folder = await install(`grpc-go-floor-${hash.digest('hex').slice(0, 12)}`, async (target) => {
    const environment = { ...process.env, CGO_ENABLED: '0', GOTOOLCHAIN: 'local', GOFLAGS: '-mod=readonly' };
    await promisify(execFile)(await installGo(), ['build', '-o', join(target, 'floor'), '.'], {
      cwd: source,
      env: environment,
    });
  });
  return join(folder, 'floor');
}
