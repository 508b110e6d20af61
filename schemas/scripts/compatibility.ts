/**
 * Fails, naming each, when a schema breaks what the newest release in `schemas/releases` promised.
 *
 *     node schemas/scripts/compatibility.ts                   compares
 *     node schemas/scripts/compatibility.ts --take VERSION    keeps today's schemas as that release
 * @module
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { parse } from 'yaml';
import { compareAsyncApi, compareOpenApi, compareSchemas } from './compare.ts';

const schemas = join(import.meta.dirname, '..');
const releases = join(schemas, 'releases');
const kept = ['asyncapi.yaml', 'buf.yaml', 'events', 'openapi', 'proto'];

async function take(version: string): Promise<void> {
  const folder = join(releases, version);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  for (const name of kept) await cp(join(schemas, name), join(folder, name), { recursive: true });
}

async function breaksSince(folder: string): Promise<string[]> {
  const breaks = await protobufBreaks(folder);
  for (const [subfolder, compare] of [
    ['openapi', compareOpenApi],
    [
      'events',
      (old: object, now: object) => compareSchemas(old as never, now as never, { direction: 'output', isClosed: true }),
    ],
  ] as const) {
    for (const file of await readdir(join(folder, subfolder))) {
      const path = join(subfolder, file);
      if (!existsSync(join(schemas, path))) breaks.push(`${path}: removed`);
      else
        breaks.push(
          ...compare(await readJson(folder, path), await readJson(schemas, path)).map((text) => `${path} ${text}`),
        );
    }
  }
  const [old, now] = await Promise.all([folder, schemas].map((from) => readFile(join(from, 'asyncapi.yaml'), 'utf8')));
  return [...breaks, ...compareAsyncApi(parse(old ?? ''), parse(now ?? '')).map((text) => `asyncapi.yaml ${text}`)];
}

async function readJson(folder: string, path: string) {
  return JSON.parse(await readFile(join(folder, path), 'utf8'));
}

async function protobufBreaks(folder: string): Promise<string[]> {
  const path = [join(schemas, '../node_modules/.bin'), process.env['PATH']].join(delimiter);
  try {
    await promisify(execFile)('buf', ['breaking', '--against', folder], {
      cwd: schemas,
      env: { ...process.env, PATH: path },
    });
    return [];
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    return `${stdout}${stderr}`.trim().split('\n');
  }
}

const [, , option, version] = process.argv;
if (option === '--take' && version !== undefined) await take(version);
else {
  const versions = await readdir(releases);
  const newest = versions.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1) ?? '';
  const breaks = await breaksSince(join(releases, newest));
  for (const text of breaks) console.error(`breaks ${newest}: ${text}`);
  if (breaks.length > 0) process.exitCode = 1;
}
