import { type ConditionName, conditionNames } from '../exchange/exchange.ts';
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

/** The one target asked for, by audience or by resource, or the default (RFC 8693 section 2.1, RFC 8707 section 2). */
export function parseAudience(parameters: Parameters, defaultAudience: string): string {
  const resource = parameters.get('resource');
  const audience = parameters.get('audience');
  const target = resource ?? audience ?? defaultAudience;
  const isValid = audienceSyntax.test(target) && (resource === undefined || isResource(resource));
  if (!isValid || (resource !== undefined && audience !== undefined)) {
    throw new OAuthError('invalid_target', 'The target is not valid; name one by audience or resource.');
  }
  return target;
}

/** An absolute URI without a fragment, an empty one included. */
function isResource(text: string): boolean {
  return /^[a-z][a-z0-9+.-]*:/i.test(text) && URL.canParse(text) && !text.includes('#');
}

/** What the client holds against every use of the answer; of names that are not known here nothing is ever asked. */
export function parseConditions(parameters: Parameters): readonly ConditionName[] {
  const named = (parameters.get('conditions') ?? '').split(' ');
  return conditionNames.filter((name) => named.includes(name));
}

export const accessTokenType = 'urn:ietf:params:oauth:token-type:access_token';
export const jwtType = 'urn:ietf:params:oauth:token-type:jwt';
export const idTokenType = 'urn:ietf:params:oauth:token-type:id_token';

/** Names of the one kind of token that is issued. */
export type IssuedTokenType = typeof accessTokenType | typeof jwtType;

export function parseRequestedTokenType(parameters: Parameters): IssuedTokenType {
  const requested = parameters.get('requested_token_type') ?? accessTokenType;
  if (requested !== accessTokenType && requested !== jwtType) {
    throw new OAuthError('invalid_request', 'The requested_token_type is not supported.');
  }
  return requested;
}

/** The token of who acts (RFC 8693 section 2.1); its type comes with it, and not without. */
export function readActorToken(parameters: Parameters): string | undefined {
  const actorToken = parameters.get('actor_token');
  const type = parameters.get('actor_token_type');
  if (actorToken === undefined && type === undefined) return undefined;
  if (actorToken === undefined || (type !== accessTokenType && type !== jwtType)) {
    throw new OAuthError('invalid_request', 'The actor_token needs an actor_token_type that is supported.');
  }
  return actorToken;
}
