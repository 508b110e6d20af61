import type { Clock, IdentityClient, Instant } from '@token-gateway/platform';
import { ageMs, type Position } from '@token-gateway/revocation';
import type { Provider } from '@token-gateway/schemas/identity';

/** Every enabled provider, as identity had them at one place of the change log. */
export interface ProviderList {
  readonly asOf: Position;
  /** More than one provider may have an issuer: they differ in their audiences. */
  ofIssuer(issuer: string): readonly Provider[];
  readonly providers: readonly Provider[];
}

export interface ProviderDirectory {
  /** The list as last read; read now when there is none. */
  current(): Promise<ProviderList>;
  /** A list read after `seen`, which is known to be outdated. */
  renew(seen: ProviderList): Promise<ProviderList>;
  /** A list that is not older than the cool-down: enough to say what is refused. */
  recent(): Promise<ProviderList>;
}

interface Deps {
  readonly identity: Pick<IdentityClient, 'listProviders'>;
  readonly clock: Clock;
  /** Told of each list read, to forget what belongs to none of its providers, and to prepare for those that are new. */
  readonly onList: (list: ProviderList) => void;
}

interface Config {
  readonly identityTimeoutMs: number;
  readonly cooldownMs: number;
}

/** Rejects with `identity_unavailable` where a list has to be read and cannot be. */
export function createProviderDirectory({ identity, clock, onList }: Deps, config: Config): ProviderDirectory {
  let last: { readonly list: ProviderList; readonly askedAt: Instant } | null = null;
  let reading: Promise<ProviderList> | null = null;

  async function read(): Promise<ProviderList> {
    const askedAt = clock.now();
    const answer = await identity.listProviders({ timeoutMs: config.identityTimeoutMs });
    const byIssuer = Map.groupBy(answer.providers, (provider) => provider.issuer);
    const list: ProviderList = {
      asOf: { epoch: answer.epoch, seq: answer.seq },
      providers: answer.providers,
      ofIssuer: (issuer) => byIssuer.get(issuer) ?? [],
    };
    last = { list, askedAt };
    onList(list);
    return list;
  }

  function readOnce(): Promise<ProviderList> {
    reading ??= read().finally(() => {
      reading = null;
    });
    return reading;
  }

  return {
    current: async () => last?.list ?? readOnce(),
    async renew(seen) {
      // A reading under way may have begun before the change that made `seen` outdated.
      await reading?.catch(() => undefined);
      return last !== null && last.list !== seen ? last.list : readOnce();
    },
    async recent() {
      return last !== null && ageMs(last.askedAt, clock.now()) < config.cooldownMs ? last.list : readOnce();
    },
  };
}
