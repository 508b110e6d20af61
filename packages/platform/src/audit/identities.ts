import type { Subject } from '@token-gateway/revocation';

/** The form of ids made here (`createId`), which no secret, token or e-mail address has. */
const idSyntax = /^(?:[a-z]{3}_)?[0-9A-Za-z]{20}$/;

export function isAuditedId(text: string): boolean {
  return idSyntax.test(text);
}

export interface AuditedIdentities {
  readonly tenantId?: string;
  readonly userId?: string;
  readonly keyId?: string;
  readonly providerId?: string;
}

const memberOf = new Map([
  ['tenant', 'tenantId'],
  ['user', 'userId'],
  ['key', 'keyId'],
  ['provider', 'providerId'],
]);

/** Of the subjects a decision depends on: not the names by which a provider knows a user, which may be e-mail addresses. */
export function auditedIdentities(subjects: readonly Subject[] = []): AuditedIdentities {
  const identities: Record<string, string> = {};
  for (const subject of subjects) {
    const [kind = '', id = ''] = subject.split(':', 2);
    const member = memberOf.get(kind);
    if (member !== undefined && isAuditedId(id)) identities[member] = id;
  }
  return identities;
}
