import { OAuthError } from './oauth-error.ts';

/** The parameters of a token request: each at most once (RFC 6749 section 3.2). */
export type Parameters = ReadonlyMap<string, string>;

/** A parameter without a value counts as omitted (RFC 6749 section 3.2). */
export function parseParameters(body: string): Parameters {
  const parameters = new Map<string, string>();
  const seen = new Set<string>();
  for (const [name, value] of new URLSearchParams(body)) {
    if (seen.has(name)) throw new OAuthError('invalid_request', 'A parameter is repeated.');
    seen.add(name);
    if (value !== '') parameters.set(name, value);
  }
  return parameters;
}

export function requireParameter(parameters: Parameters, name: string): string {
  const value = parameters.get(name);
  if (value === undefined) throw new OAuthError('invalid_request', `The parameter ${name} is missing.`);
  return value;
}

const scopeSyntax = /^[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*$/;

/** The scope parameter (RFC 6749 section 3.3); undefined when it is absent. */
export function parseScope(parameters: Parameters): readonly string[] | undefined {
  const scope = parameters.get('scope');
  if (scope === undefined) return undefined;
  if (!scopeSyntax.test(scope)) throw new OAuthError('invalid_scope', 'The scope is not valid.');
  return scope.split(' ');
}

const audienceSyntax = /^[\x21-\x7e]{1,255}$/;

/** The one audience asked for, or the default (RFC 8693 section 2.1, RFC 8707 section 2). */
export function parseAudience(parameters: Parameters, defaultAudience: string): string {
  const audience = parameters.get('audience') ?? defaultAudience;
  if (parameters.has('resource') || !audienceSyntax.test(audience)) {
    throw new OAuthError('invalid_target', 'The target is not valid; name one by audience.');
  }
  return audience;
}
