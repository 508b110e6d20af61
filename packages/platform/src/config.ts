/**
 * Configuration is read once, in a service's main.ts, from environment variables with our prefix. A field says how its
 * text is read; the type of the configuration follows from the fields.
 * @module
 */

import { readFileSync } from 'node:fs';
import { inspect } from 'node:util';

const prefix = 'TG_';
const redacted = '[redacted]';

/** A value that shows itself only when asked to. */
export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  reveal(): string {
    return this.#value;
  }

  toString(): string {
    return redacted;
  }

  toJSON(): string {
    return redacted;
  }

  [inspect.custom](): string {
    return redacted;
  }
}

/** Everything that is wrong with a configuration. */
export class ConfigError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`the configuration is not valid: ${problems.join('; ')}`);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** One environment variable and how to read it. */
export interface Field<T> {
  readonly name: string;
  /** True when NAME_FILE may name a file with the value instead. */
  readonly fromFile: boolean;
  /** `text` is undefined when the variable is absent or empty. */
  parse(text: string | undefined): T | Invalid;
}

/** What is wrong with a value, said without the value. */
class Invalid {
  readonly message: string;

  constructor(message: string) {
    this.message = message;
  }
}

type Fields = Readonly<Record<string, Field<unknown>>>;

/** The configuration that fields describe. */
export type ConfigOf<F extends Fields> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };

/** Reads the fields. Throws ConfigError with every problem, unknown variables of our prefix among them. */
export function loadConfig<F extends Fields>(fields: F, env: NodeJS.ProcessEnv): ConfigOf<F> {
  const problems: string[] = [];
  const known = new Set<string>();
  const config: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(fields)) {
    known.add(field.name);
    if (field.fromFile) known.add(`${field.name}_FILE`);
    const text = readText(field, env);
    const value = text instanceof Invalid ? text : field.parse(text);
    if (value instanceof Invalid) problems.push(`${field.name} ${value.message}`);
    else config[key] = value;
  }
  for (const name of Object.keys(env)) {
    if (name.startsWith(prefix) && !known.has(name)) problems.push(`${name} is not known`);
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return config as ConfigOf<F>;
}

function readText(field: Field<unknown>, env: NodeJS.ProcessEnv): string | undefined | Invalid {
  const value = env[field.name] || undefined;
  const path = field.fromFile ? env[`${field.name}_FILE`] || undefined : undefined;
  if (path === undefined) return value;
  if (value !== undefined) return new Invalid(`and ${field.name}_FILE are both set`);
  try {
    return readFileSync(path, 'utf8').trim() || undefined;
  } catch {
    return new Invalid('cannot be read from its file');
  }
}

function field<T>(
  name: string,
  fallback: T | undefined,
  parse: (text: string) => T | Invalid,
  fromFile = false,
): Field<T> {
  return {
    name,
    fromFile,
    parse: (text) => (text === undefined ? (fallback ?? new Invalid('is required')) : parse(text)),
  };
}

export function text(name: string, options: { readonly default?: string } = {}): Field<string> {
  return field(name, options.default, (value) => value, true);
}

export function secret(name: string): Field<Secret> {
  return field<Secret>(name, undefined, (value) => new Secret(value), true);
}

export function integer(
  name: string,
  options: { readonly default?: number; readonly minimum?: number; readonly maximum?: number } = {},
): Field<number> {
  const { minimum = Number.MIN_SAFE_INTEGER, maximum = Number.MAX_SAFE_INTEGER } = options;
  return field(name, options.default, (value) => {
    const number = /^-?\d+$/.test(value) ? Number(value) : Number.NaN;
    if (number >= minimum && number <= maximum) return number;
    return new Invalid(`must be an integer from ${minimum} to ${maximum}`);
  });
}

/** A port to listen on; 0 takes a free one. */
export function port(name: string, fallback?: number): Field<number> {
  return integer(name, { minimum: 0, maximum: 65_535, ...(fallback === undefined ? {} : { default: fallback }) });
}

/** An absolute URL, as it was written (an issuer is compared by its characters). */
export function url(
  name: string,
  options: { readonly default?: string; readonly schemes?: readonly string[] } = {},
): Field<string> {
  const { schemes = httpSchemes } = options;
  return field(name, options.default, (value) =>
    isUrl(value, schemes) ? value : new Invalid(`must be a URL with ${prefixesOf(schemes)}, without credentials`),
  );
}

const httpSchemes = ['http', 'https'];

function isUrl(value: string, schemes: readonly string[]): boolean {
  const parsed = schemes.some((scheme) => value.startsWith(`${scheme}://`)) ? URL.parse(value) : null;
  return parsed !== null && parsed.username === '' && parsed.password === '';
}

function prefixesOf(schemes: readonly string[]): string {
  return schemes.map((scheme) => `${scheme}://`).join(' or ');
}

/** Values separated by commas. */
export function list(name: string, options: { readonly default?: readonly string[] } = {}): Field<readonly string[]> {
  return field(name, options.default, (value) => {
    const items = value.split(',').map((item) => item.trim());
    return items.includes('') ? new Invalid('must be values separated by commas, none of them empty') : items;
  });
}

/** URLs with http:// or https://, separated by commas. */
export function urls(name: string, options: { readonly default?: readonly string[] } = {}): Field<readonly string[]> {
  const items = list(name, options);
  return {
    ...items,
    parse(value) {
      const found = items.parse(value);
      if (found instanceof Invalid || found.every((item) => isUrl(item, httpSchemes))) return found;
      return new Invalid(`must be URLs with ${prefixesOf(httpSchemes)}, without credentials`);
    },
  };
}

/**
 * Beginnings of API keys that another system made, separated by commas; none can be taken for a key of this product, nor for
 * a JWT, which begins with a brace in base64url.
 */
export function keyPrefixes(name: string): Field<readonly string[]> {
  const items = list(name, { default: [] });
  return {
    ...items,
    parse(value) {
      const found = items.parse(value);
      const isGood = (item: string) => /^[A-Za-z0-9][A-Za-z0-9._~+-]{1,31}$/.test(item) && !/^(?:tgk|ew|ey)/.test(item);
      if (found instanceof Invalid || found.every(isGood)) return found;
      return new Invalid('must be beginnings of keys, of 2 to 32 characters, none of them tgk, ew or ey');
    },
  };
}

export function flag(name: string, fallback: boolean): Field<boolean> {
  return field(name, fallback, (value) =>
    value === 'true' || value === 'false' ? value === 'true' : new Invalid('must be true or false'),
  );
}

export function choice<T extends string>(name: string, values: readonly T[], fallback?: T): Field<T> {
  return field(
    name,
    fallback,
    (value) => values.find((candidate) => candidate === value) ?? new Invalid(`must be one of ${values.join(', ')}`),
  );
}

export function optional<T>(inner: Field<T>): Field<T | undefined> {
  return { ...inner, parse: (value) => (value === undefined ? undefined : inner.parse(value)) };
}

/** What every service reads. */
export const commonFields = {
  logLevel: choice('TG_LOG_LEVEL', ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], 'info'),
  host: text('TG_HOST', { default: '127.0.0.1' }),
  metricsPort: port('TG_METRICS_PORT', 9464),
  drainMs: integer('TG_DRAIN_MS', { default: 3000, minimum: 0, maximum: 600_000 }),
};
