import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { inspect } from 'node:util';
import { pino } from 'pino';
import {
  ConfigError,
  choice,
  flag,
  integer,
  keyPrefixes,
  list,
  loadConfig,
  optional,
  port,
  secret,
  text,
  url,
} from './config.ts';

const fields = {
  name: text('TG_NAME'),
  attempts: integer('TG_ATTEMPTS', { default: 3, minimum: 1, maximum: 9 }),
  listenPort: port('TG_PORT', 8080),
  issuer: url('TG_ISSUER', { default: 'https://issuer.example' }),
  brokers: optional(list('TG_BROKERS')),
  insecure: flag('TG_INSECURE', false),
  mode: choice('TG_MODE', ['a', 'b'], 'a'),
  password: secret('TG_PASSWORD'),
};

const required = { TG_NAME: 'n', TG_PASSWORD: 'hunter2' };

function problemsOf(env: NodeJS.ProcessEnv): readonly string[] {
  try {
    loadConfig(fields, env);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems;
  }
  return [];
}

describe('configuration', () => {
  it('reads every kind of field, and takes an empty variable for an absent one', () => {
    const env = {
      ...required,
      TG_ATTEMPTS: '5',
      TG_PORT: '',
      TG_BROKERS: 'a:1, b:2',
      TG_INSECURE: 'true',
      TG_MODE: 'b',
      PATH: '/bin',
    };
    const { password, ...config } = loadConfig(fields, env);
    assert.deepEqual(config, {
      name: 'n',
      attempts: 5,
      listenPort: 8080,
      issuer: 'https://issuer.example',
      brokers: ['a:1', 'b:2'],
      insecure: true,
      mode: 'b',
    });
    assert.equal(password.reveal(), 'hunter2');
    assert.equal(loadConfig(fields, required).brokers, undefined);
  });

  it('reports every problem at once, unknown variables of our prefix among them', () => {
    const env = {
      TG_ATTEMPTS: '10',
      TG_PORT: '8080x',
      TG_ISSUER: 'ftp://issuer.example',
      TG_BROKERS: 'a,,b',
      TG_INSECURE: 'yes',
      TG_MODE: 'c',
      TG_NMAE: 'n',
      OTHER: 'ignored',
    };
    assert.deepEqual(problemsOf(env), [
      'TG_NAME is required',
      'TG_ATTEMPTS must be an integer from 1 to 9',
      'TG_PORT must be an integer from 0 to 65535',
      'TG_ISSUER must be a URL with http:// or https://, without credentials',
      'TG_BROKERS must be values separated by commas, none of them empty',
      'TG_INSECURE must be true or false',
      'TG_MODE must be one of a, b',
      'TG_PASSWORD is required',
      'TG_NMAE is not known',
    ]);
  });

  it('takes no URL with credentials, which would stand in logs and be sent along', () => {
    for (const issuer of ['https://user@issuer.example', 'https://:secret@issuer.example', 'https://a%ff:b@[::1]/']) {
      assert.deepEqual(problemsOf({ ...required, TG_ISSUER: issuer }), [
        'TG_ISSUER must be a URL with http:// or https://, without credentials',
      ]);
    }
  });

  it('takes a secret from a file, and refuses two sources of one value', (test) => {
    const folder = mkdtempSync(join(tmpdir(), 'config-'));
    test.after(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'password');
    writeFileSync(path, 'from-file\n');
    const config = loadConfig(fields, { TG_NAME: 'n', TG_PASSWORD_FILE: path });
    assert.equal(config.password.reveal(), 'from-file');
    assert.deepEqual(problemsOf({ ...required, TG_PASSWORD_FILE: path }), [
      'TG_PASSWORD and TG_PASSWORD_FILE are both set',
    ]);
    assert.deepEqual(problemsOf({ TG_NAME: 'n', TG_PASSWORD_FILE: join(folder, 'none') }), [
      'TG_PASSWORD cannot be read from its file',
    ]);
    assert.deepEqual(problemsOf({ ...required, TG_PORT_FILE: path }), ['TG_PORT_FILE is not known']);
  });

  it('takes beginnings of foreign keys that no key of here has', () => {
    const prefixed = { prefixes: keyPrefixes('TG_PREFIXES') };
    assert.deepEqual(loadConfig(prefixed, {}).prefixes, []);
    assert.deepEqual(loadConfig(prefixed, { TG_PREFIXES: 'acme_, sk-live-' }).prefixes, ['acme_', 'sk-live-']);
    for (const bad of ['tgk_', 'tgk_0', 'tgk', 'eyJ', 'ew', 'a', 'a b', 'acme_,', '_acme', 'x'.repeat(33)]) {
      assert.throws(() => loadConfig(prefixed, { TG_PREFIXES: bad }), ConfigError, bad);
    }
  });

  it('never shows a secret, however it is printed', () => {
    const config = loadConfig(fields, required);
    const lines: string[] = [];
    pino({}, { write: (line) => void lines.push(line) }).info({ config, password: config.password }, 'loaded');
    const shown = [
      `${config.password}`,
      JSON.stringify(config),
      inspect(config, { depth: 9, showHidden: true }),
      ...lines,
    ].join();
    assert.ok(shown.includes('[redacted]'));
    assert.ok(!shown.includes('hunter2'));
  });

  it('never repeats a value in a problem', () => {
    const value = 'hunter2!';
    const env = Object.fromEntries(Object.values(fields).map((field) => [field.name, value]));
    assert.ok(!problemsOf(env).join().includes(value));
  });
});
