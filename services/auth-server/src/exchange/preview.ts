/**
 * What a provider's token would become, and why it would be refused. The exchange itself runs, on a list of providers that
 * has this one alone, with a question to identity that changes nothing and a signer that signs nothing: what comes out can
 * never be used as a token.
 * @module
 */
import { type ErrorCode, ServiceError } from '@token-gateway/platform';
import type { Provider } from '@token-gateway/schemas/identity';
import type { JWTPayload } from 'jose';
import type { ProviderDirectory, ProviderList } from '../providers/provider-directory.ts';
import { type Conditions, conditionNames, createExchange, type ExchangeDeps } from './exchange.ts';
import { isFor } from './external-token.ts';
import { type JwtForm, readJwtForm } from './jwt-form.ts';
import { refusedBy } from './jwt-reader.ts';
import type { TokenUse } from './token-use.ts';

export interface PreviewRequest {
  readonly token: string;
  readonly use: TokenUse;
  readonly audience: string;
  /** The provider as it is, or as it would be. */
  readonly change: (provider: Provider) => Provider;
}

export type PreviewResult =
  | {
      readonly outcome: 'granted';
      /** Without what says who asked, and by which name the token is known. */
      readonly claims: Readonly<Record<string, unknown>>;
      readonly conditions: Conditions | null;
      /** Whom the first use would link or make; absent: the user is known. */
      readonly firstUse?: 'linked' | 'created';
    }
  /** `undecided`: what a caller would get is 503. */
  | { readonly outcome: 'refused' | 'undecided'; readonly code: ErrorCode; readonly detail?: string };

export type Preview = (providerId: string, request: PreviewRequest) => Promise<PreviewResult>;

export type PreviewDeps = Omit<ExchangeDeps, 'signer' | 'newTokenId'>;

interface Config {
  readonly issuer: string;
  readonly identityTimeoutMs: number;
  readonly importedKeyPrefixes?: readonly string[];
}

const nobody = 'preview';

/** Rejects with a ServiceError of status 503 where identity cannot be asked, and with `not_found`. */
export function createPreview(deps: PreviewDeps, config: Config): Preview {
  async function run(providerId: string, { token, use, audience, change }: PreviewRequest): Promise<PreviewResult> {
    let claims: JWTPayload = {};
    let firstUse: string | undefined;
    const exchange = createExchange(
      {
        ...deps,
        directory: narrowed(deps.directory, (list) =>
          list.providers.filter(({ id }) => id === providerId).map((provider) => change(provider)),
        ),
        identity: {
          async resolve({ credential }, options) {
            if (credential?.$case !== 'external') throw new ServiceError('internal', { detail: 'no external token' });
            const answer = await deps.identity.resolve({ credential: { ...credential, $case: 'preview' } }, options);
            firstUse = answer.outcome?.$case === 'granted' ? answer.outcome.value.firstUse : undefined;
            return answer;
          },
        },
        // Our own tokens are of no provider.
        ownKeys: undefined,
        signer: {
          async sign(given) {
            claims = given;
            return '';
          },
          publicKeys: async () => [],
        },
        newTokenId: () => nobody,
      },
      config,
    );
    const result = await exchange({
      credential: { kind: 'jwt', value: token, use },
      audience,
      clientId: nobody,
      heeds: conditionNames,
    });
    if (result.outcome === 'refused') {
      const { code, detail } = result;
      return { outcome: 'refused', code, ...(detail === undefined ? {} : { detail }) };
    }
    const { jti, client_id, sub, ...rest } = claims;
    return {
      outcome: 'granted',
      claims: { ...(firstUse === 'created' ? {} : { sub }), ...rest },
      conditions: result.conditions,
      ...(firstUse === 'created' || firstUse === 'linked' ? { firstUse } : {}),
    };
  }

  return async (providerId, request) => {
    const list = await deps.directory.recent();
    const found = list.providers.find(({ id }) => id === providerId);
    if (found === undefined) throw new ServiceError('not_found', { detail: `provider ${providerId}` });
    try {
      const result = await run(providerId, request);
      // Told of tokens that are good otherwise alone: another's audiences are nothing to guess at.
      if (result.outcome !== 'granted' || !isRivalled(request.token, found, list)) return result;
      return { outcome: 'refused', code: 'token_audience_refused', detail: 'for several providers of its issuer' };
    } catch (error) {
      if (!(error instanceof ServiceError) || error.code !== 'provider_unavailable') throw error;
      // What went wrong on the way says something of the network here: that is in the log alone.
      return { outcome: 'undecided', code: error.code };
    }
  };
}

/** Whether another provider would take the token as well, whosever it is: then nobody does. */
function isRivalled(token: string, provider: Provider, list: ProviderList): boolean {
  // An opaque token is of the one provider that has its prefix.
  const form = formOf(token);
  if (form === null) return false;
  return list.ofIssuer(form.issuer).some((other) => other.id !== provider.id && isFor(form, other));
}

function formOf(token: string): JwtForm | null {
  try {
    return readJwtForm(token);
  } catch (error) {
    refusedBy(error);
    return null;
  }
}

/** The same directory, as far as it has what is chosen. */
function narrowed(
  directory: ProviderDirectory,
  choose: (list: ProviderList) => readonly Provider[],
): ProviderDirectory {
  const origins = new WeakMap<ProviderList, ProviderList>();

  function narrow(list: ProviderList): ProviderList {
    const providers = choose(list);
    const own: ProviderList = {
      asOf: list.asOf,
      providers,
      ofIssuer: (issuer) => providers.filter((provider) => provider.issuer === issuer),
    };
    origins.set(own, list);
    return own;
  }

  return {
    current: async () => narrow(await directory.current()),
    recent: async () => narrow(await directory.recent()),
    renew: async (seen) => narrow(await directory.renew(origins.get(seen) ?? seen)),
  };
}
