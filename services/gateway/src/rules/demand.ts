/**
 * What a route demands of the internal token, whether a rule of the file says it or the proxy does.
 * @module
 */
import { type ErrorCode, isObject } from '@token-gateway/platform';
import type { Decision } from '../decision/decision.ts';
import type { Rule } from './rule.ts';

/** As the proxy that knows the route says it, beside its audience. */
export type RouteDemand = Pick<Rule, 'access' | 'credentials' | 'scopes' | 'entitlements'>;
export type Allowed = Extract<Decision, { outcome: 'allow' }>;
export type Claims = Readonly<Record<string, unknown>>;

/** Of the internal token, which comes from an issuer that this gateway trusts (RFC 7519 section 3); none when it is no JWT. */
export function claimsOf({ token }: Pick<Allowed, 'token'>): Claims {
  try {
    const claims: unknown = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    return isObject(claims) ? claims : {};
  } catch {
    return {};
  }
}

/** Why a token that was accepted is not enough here; null when it is. */
export function unmetDemand({ kind }: Pick<Allowed, 'kind'>, claims: Claims, demand: RouteDemand): ErrorCode | null {
  if (demand.credentials !== undefined && !demand.credentials.some((heard) => heard === kind))
    return 'credential_kind_not_allowed';
  const scopes = typeof claims['scope'] === 'string' ? claims['scope'].split(' ') : [];
  if (demand.scopes?.every((scope) => scopes.includes(scope)) === false) return 'scope_missing';
  const entitlements = Array.isArray(claims['entitlements']) ? claims['entitlements'] : [];
  return demand.entitlements?.every((name) => entitlements.includes(name)) === false ? 'entitlement_missing' : null;
}

/**
 * A claim as the value of a header (RFC 9110 section 5.5): text, number, truth value, or a list of them joined by commas; a
 * claim within a claim by `.`. Null for what is absent or cannot be written unmistakably.
 */
export function headerValueOf(claims: Claims, name: string): string | null {
  const value = Object.hasOwn(claims, name) ? claims[name] : inner(claims, name.split('.'));
  const items = (Array.isArray(value) ? value : [value]).map(textOf);
  const isList = Array.isArray(value);
  if (items.length === 0 || items.some((item) => item === null || (isList && item.includes(',')))) return null;
  const text = items.join(',');
  return /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(text) ? text : null;
}

function inner(value: unknown, [name, ...rest]: readonly string[]): unknown {
  if (name === undefined) return value;
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined;
  return inner((value as Claims)[name], rest);
}

function textOf(value: unknown): string | null {
  if (typeof value === 'string') return value;
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : null;
}
