/** What a change is about and what a decision depends on, as a string that both sides compare. */
export type Subject = string;

/** The subject of changes that concern every decision: a change with no subjects. */
export const allSubject: Subject = 'all';

export const keySubject = (keyId: string): Subject => `key:${keyId}`;
export const userSubject = (userId: string): Subject => `user:${userId}`;
export const tenantSubject = (tenantId: string): Subject => `tenant:${tenantId}`;
export const providerSubject = (providerId: string): Subject => `provider:${providerId}`;
export const externalSubject = (providerId: string, subject: string): Subject => `external:${providerId}:${subject}`;
export const sessionSubject = (providerId: string, sessionId: string): Subject => `session:${providerId}:${sessionId}`;
/** Of a JWT: the SHA-256 of its signing input, since one signature has several encodings. */
export const credentialSubject = (signingInputSha256Hex: string): Subject => `credential:${signingInputSha256Hex}`;
