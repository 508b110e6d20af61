/** Programs in Go that judge a server of gRPC; they are built once, in `.parts/`. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { install, installGo } from '../parts/native-install.ts';

const run = promisify(execFile);

/** What a program printed, and whether it was content. */
export interface Verdict {
  readonly isContent: boolean;
  readonly output: string;
}

async function build(name: string, program: string): Promise<string> {
  const source = join(import.meta.dirname, name);
  const hash = createHash('sha256');
  for (const file of readdirSync(source)) hash.update(readFileSync(join(source, file)));
  const folder = await install(`${name}-${hash.digest('hex').slice(0, 12)}`, async (target) => {
    const environment = { ...process.env, CGO_ENABLED: '0', GOTOOLCHAIN: 'local', GOFLAGS: '-mod=readonly' };
    await run(await installGo(), ['build', '-o', join(target, name), program], { cwd: source, env: environment });
  });
  return join(folder, name);
}

async function judge(command: string, args: readonly string[]): Promise<Verdict> {
  try {
    const { stdout } = await run(command, args);
    return { isContent: true, output: stdout };
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    return { isContent: false, output: `${stdout}${stderr}${String(error)}` };
  }
}

/** All cases of h2spec. */
export async function h2spec(port: number, isStrict: boolean): Promise<Verdict> {
  const command = await build('h2spec', 'github.com/summerwind/h2spec/cmd/h2spec');
  return judge(command, ['-h', '127.0.0.1', '-p', String(port), '-o', '2', ...(isStrict ? ['--strict'] : [])]);
}

/** A client of grpc-go at the service of `echo.testing.ts`. */
export async function grpcGoClient(port: number): Promise<Verdict> {
  return judge(await build('grpc-go', '.'), [`127.0.0.1:${port}`]);
}
