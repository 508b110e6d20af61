/** Resource servers in Go, Java and Python, as processes of this machine; what they are made of is in `.parts/`. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort } from '../parts/free-port.ts';
import { install, installGo } from '../parts/native-install.ts';
import { createFolder, createServer } from '../parts/native-server.ts';
import { startPart } from '../parts/server.ts';
import type { Verifier } from './port.ts';

const run = promisify(execFile);
const source = (...path: string[]): string => join(import.meta.dirname, ...path);

interface Program {
  readonly command: string;
  readonly args: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

/** A version of what is installed: another one wherever one of these files is. */
function fingerprint(...files: string[]): string {
  const hash = createHash('sha256');
  for (const file of files) hash.update(readFileSync(file));
  return hash.digest('hex').slice(0, 12);
}

async function go(): Promise<Program> {
  const files = ['go.mod', 'go.sum', 'main.go'].map((name) => source('go', name));
  const folder = await install(`verifier-go-${fingerprint(...files)}`, async (target) => {
    const environment = { ...process.env, CGO_ENABLED: '0', GOTOOLCHAIN: 'local', GOFLAGS: '-mod=readonly' };
    await run(await installGo(), ['build', '-o', join(target, 'verifier'), '.'], {
      cwd: source('go'),
      env: environment,
    });
  });
  return { command: join(folder, 'verifier'), args: [] };
}

async function java(): Promise<Program> {
  await run('javac', ['-version']);
  const pom = source('java', 'pom.xml');
  const folder = await install(`verifier-java-${fingerprint(pom)}`, async (target) => {
    cpSync(pom, join(target, 'pom.xml'));
    const copy = [
      'dependency:copy-dependencies',
      '-DincludeScope=runtime',
      `-DoutputDirectory=${join(target, 'libs')}`,
    ];
    await run('mvn', ['-q', '-B', '-f', join(target, 'pom.xml'), ...copy]);
  });
  return { command: 'java', args: ['-Xmx128m', '-cp', join(folder, 'libs/*'), source('java', 'Verifier.java')] };
}

async function python(): Promise<Program> {
  const requirements = source('python', 'requirements.txt');
  const folder = await install(`verifier-python-${fingerprint(requirements)}`, async (target) => {
    const options = ['--quiet', '--require-hashes', '--only-binary=:all:', '--disable-pip-version-check'];
    await run('python3', ['-m', 'pip', 'install', ...options, '--target', target, '-r', requirements]);
  });
  return { command: 'python3', args: [source('python', 'verifier.py')], environment: { PYTHONPATH: folder } };
}

function verifier(name: string, program: () => Promise<Program>): Verifier {
  return {
    name,
    keysKnownWithinMs: 2000,
    async prepare() {
      await program();
    },
    async start({ issuer, audience }) {
      const { command, args, environment } = await program();
      const port = await freePort();
      const url = `http://127.0.0.1:${port}`;
      const trust = { ISSUER: issuer, AUDIENCE: audience, JWKS_URL: `${issuer}/.well-known/jwks.json` };
      const server = createServer(createFolder(), command, args, {
        environment: { ...environment, ...trust, PORT: String(port) },
      });
      const part = await startPart(name, server, async () => void (await fetch(url)));
      return { ...part, url };
    },
  };
}

export const programs: readonly Verifier[] = [
  verifier('Go: golang-jwt with keyfunc', go),
  verifier('Java: Nimbus', java),
  verifier('Python: PyJWT', python),
];
