/**
 * Asks a provider about an opaque token (RFC 7662). The token goes to the endpoint of that provider and nowhere else; what
 * cannot be asked, in time or at all, is `provider_unavailable`.
 * @module
 */
import { type Logger, type Registry, ServiceError } from '@token-gateway/platform';
import type { Provider } from '@token-gateway/schemas/identity';
import { Counter } from 'prom-client';
import type { PostDocument } from './document-fetcher.ts';
import type { IntrospectionSecrets } from './introspection-secrets.ts';
import type { IntrospectionRules } from './provider-configuration.ts';

/** The answer as it is; nothing in it is checked yet. */
export type Introspect = (provider: Provider, rules: IntrospectionRules, token: string) => Promise<unknown>;

interface Deps {
  readonly post: PostDocument;
  readonly secrets: Pick<IntrospectionSecrets, 'find'>;
  readonly logger: Logger;
  readonly registry: Registry;
}

interface Config {
  readonly timeoutMs: number;
  /** Questions to one provider at the same time; what comes beyond is not asked. */
  readonly concurrencyMax: number;
}

export function createIntrospector({ post, secrets, logger, registry }: Deps, config: Config): Introspect {
  const underWay = new Map<string, number>();
  /** Providers that could not be asked last time: each is told of once. */
  const failing = new Set<string>();
  const total = new Counter({
    name: 'tg_auth_server_provider_introspections_total',
    help: 'Questions to providers about opaque tokens, by outcome.',
    labelNames: ['outcome'],
    registers: [registry],
  });

  async function ask(provider: Provider, rules: IntrospectionRules, token: string): Promise<unknown> {
    const secret = await secrets.find(provider.id, rules);
    if (secret === null) {
      throw new ServiceError('provider_unavailable', { detail: `no secret for the endpoint of ${provider.id}` });
    }
    return post(rules.endpoint, {
      body: new URLSearchParams({ token, token_type_hint: 'access_token' }).toString(),
      headers: {
        'content-type': 'application/x-www-form-urlencoded',
        authorization: `Basic ${Buffer.from(`${formEncoded(rules.clientId)}:${formEncoded(secret)}`).toString('base64')}`,
      },
      timeoutMs: config.timeoutMs,
    });
  }

  return async (provider, rules, token) => {
    const { id } = provider;
    const count = underWay.get(id) ?? 0;
    if (count >= config.concurrencyMax) {
      total.inc({ outcome: 'not_asked' });
      throw new ServiceError('provider_unavailable', { detail: `${count} questions to ${id} are under way` });
    }
    underWay.set(id, count + 1);
    try {
      const answer = await ask(provider, rules, token);
      failing.delete(id);
      total.inc({ outcome: 'answered' });
      return answer;
    } catch (error) {
      if (!failing.has(id)) logger.warn({ err: error, providerId: id }, 'a provider could not be asked about a token');
      failing.add(id);
      total.inc({ outcome: 'failed' });
      throw error;
    } finally {
      const rest = (underWay.get(id) ?? 1) - 1;
      if (rest === 0) underWay.delete(id);
      else underWay.set(id, rest);
    }
  };
}

/** RFC 6749 section 2.3.1. */
function formEncoded(text: string): string {
  return encodeURIComponent(text).replaceAll('%20', '+');
}
