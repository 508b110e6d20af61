/**
 * Whom a security event is about (RFC 9493, OpenID Shared Signals 1.0 section 3). A provider speaks of its own subjects
 * only, and of an address only where addresses that it has verified are what links them.
 * @module
 */
import { isObject, ServiceError } from '@token-gateway/platform';
import type { AccountName, Provider } from '@token-gateway/schemas/identity';
import { evaluate, textOf } from '../exchange/claim-mapping.ts';
import type { ProviderConfiguration } from '../providers/provider-configuration.ts';
import { invalid } from './claims.ts';

export interface SubjectName {
  readonly sessionId: string | null;
  readonly account: AccountName | null;
}

type Identifier = Readonly<Record<string, unknown>>;

const aliasesMax = 10;

/** Throws `token_claims_invalid` for what is no identifier, is of no known format, or is another issuer's. */
export function subjectOf(value: unknown, provider: Provider, configuration: ProviderConfiguration): SubjectName {
  if (!isObject(value)) throw invalid('no subject');
  const accountOf = (identifier: unknown) => accountNameOf(identifier, provider, configuration);
  if (formatOf(value) !== 'complex') return { sessionId: null, account: accountOf(value) };
  const { session, user } = value;
  return {
    sessionId: session === undefined ? null : sessionIdOf(session, provider),
    account: user === undefined ? null : accountOf(user),
  };
}

/** RISC had `subject_type`, and hyphens, before; a complex one had no format. */
function formatOf(identifier: Identifier): string {
  const format = identifier['format'] ?? identifier['subject_type'];
  if (format === undefined && ('user' in identifier || 'session' in identifier)) return 'complex';
  return typeof format === 'string' ? format.replaceAll('-', '_') : '';
}

function accountNameOf(value: unknown, provider: Provider, configuration: ProviderConfiguration): AccountName {
  if (!isObject(value)) throw invalid('no identifier');
  switch (formatOf(value)) {
    case 'iss_sub': {
      if (value['iss'] !== provider.issuer) throw invalid('a subject of another issuer');
      // By the name that the provider's tokens have for the user, where it is not `sub`.
      const mapped = evaluate('subject', configuration.mapping.subject, { iss: value['iss'], sub: value['sub'] });
      return { subject: required('sub', mapped), email: '' };
    }
    case 'opaque':
      return { subject: required('id', value['id']), email: '' };
    case 'email': {
      if (!configuration.isLinkedByEmail) throw invalid('an address, where none links anybody');
      return { subject: '', email: required('email', value['email']) };
    }
    case 'aliases':
      return firstOf(value['identifiers'], provider, configuration);
    default:
      throw invalid('the format of an identifier');
  }
}

/** RFC 9493 section 3.2.8: they all name the same. The first that is understood is taken. */
function firstOf(identifiers: unknown, provider: Provider, configuration: ProviderConfiguration): AccountName {
  if (!Array.isArray(identifiers)) throw invalid('aliases');
  for (const identifier of identifiers.slice(0, aliasesMax)) {
    if (!isObject(identifier) || formatOf(identifier) === 'aliases') continue;
    try {
      return accountNameOf(identifier, provider, configuration);
    } catch (error) {
      if (!(error instanceof ServiceError) || error.code !== 'token_claims_invalid') throw error;
    }
  }
  throw invalid('no alias that is understood');
}

function sessionIdOf(value: unknown, provider: Provider): string {
  if (!isObject(value)) throw invalid('no session');
  switch (formatOf(value)) {
    case 'opaque':
      return required('session', value['id']);
    case 'iss_sub':
      if (value['iss'] !== provider.issuer) throw invalid('a session of another issuer');
      return required('session', value['sub']);
    default:
      throw invalid('the format of a session');
  }
}

function required(name: string, value: unknown): string {
  const text = textOf(name, value);
  if (text === undefined) throw invalid(name);
  return text;
}
