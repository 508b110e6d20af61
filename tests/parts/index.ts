import { after, describe, test } from 'node:test';
import { createContainerParts } from './containers.ts';
import { createNativeParts } from './native.ts';
import type { Part, PartName, Parts, PartsProvider } from './port.ts';

export type * from './port.ts';

export const partNames: readonly PartName[] = ['postgres', 'kafka', 'redis', 'envoy', 'keycloak'];

const providers: Readonly<Record<PartsProvider['name'], PartsProvider>> = {
  containers: createContainerParts(),
  native: createNativeParts(),
};

/**
 * The provider that can start all the parts named: the one of `TG_PARTS` (`containers` or `native`), or else containers
 * where a Docker engine has or gets their images, or else native processes. Rejects, saying why, where there is none.
 */
export async function openParts(
  needs: readonly PartName[] = partNames,
  choice = process.env['TG_PARTS'],
): Promise<PartsProvider> {
  const reasons: Error[] = [];
  for (const provider of candidates(choice)) {
    try {
      await Promise.all(needs.map((part) => prepare(provider, part)));
      announce(provider);
      return provider;
    } catch (error) {
      reasons.push(new Error(`${provider.name}: ${messageOf(error)}`, { cause: error }));
    }
  }
  const why = reasons.map(({ message }) => message).join('; ');
  throw new AggregateError(reasons, `no real ${needs.join(', ')}: ${why}`);
}

/**
 * A suite on real parts. It stops whatever it started through `parts` after its last test and its own `after` hooks. Where a
 * part cannot be had the suite fails if `CI` is set, and else is skipped by name.
 */
export async function partsSuite(
  name: string,
  needs: readonly PartName[],
  define: (parts: Parts) => void,
): Promise<void> {
  let provider: PartsProvider;
  try {
    provider = await openParts(needs);
  } catch (error) {
    void test(name, { skip: process.env['CI'] ? false : messageOf(error) }, () => {
      throw error;
    });
    return;
  }
  void describe(`${name} [${provider.name}]`, () => {
    const { parts, stopAll } = remembering(provider);
    define(parts);
    after(stopAll);
  });
}

/** Each provider gets each part ready once in this process. */
const prepared = new Map<string, Promise<string>>();

function prepare(provider: PartsProvider, part: PartName): Promise<string> {
  const key = `${provider.name} ${part}`;
  const known = prepared.get(key);
  if (known !== undefined) return known;
  const preparing = provider.prepare(part).catch((error: unknown) => {
    throw new Error(`${part}: ${messageOf(error)}`, { cause: error });
  });
  prepared.set(key, preparing);
  return preparing;
}

function candidates(choice: string | undefined): readonly PartsProvider[] {
  if (choice === undefined) return [providers.containers, providers.native];
  if (choice === 'containers' || choice === 'native') return [providers[choice]];
  throw new Error(`TG_PARTS is ${JSON.stringify(choice)}; it can be "containers" or "native"`);
}

let announced = false;

/** Once in a process, and not in those of a test run: that says it for all of them. */
function announce(provider: PartsProvider): void {
  if (!announced && !process.env['REAL_PARTS_ANNOUNCED']) console.log(`real parts: ${provider.name}`);
  announced = true;
}

function remembering(provider: PartsProvider): { parts: Parts; stopAll: () => Promise<void> } {
  const started = new Set<Part>();
  const remember = <T extends Part>(part: T): T => {
    started.add(part);
    return part;
  };
  return {
    parts: {
      postgres: async (options) => remember(await provider.postgres(options)),
      kafka: async (options) => remember(await provider.kafka(options)),
      redis: async (options) => remember(await provider.redis(options)),
      envoy: async (config) => remember(await provider.envoy(config)),
      keycloak: async () => remember(await provider.keycloak()),
    },
    async stopAll() {
      await Promise.all([...started].map((part) => part.stop()));
    },
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
