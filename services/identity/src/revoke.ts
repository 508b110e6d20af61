/**
 * Ends a credential for another service, which verified that somebody has it: a JWT by its signing input, a key by its
 * secret.
 * @module
 */
import { credentialSubject, keySubject } from '@token-gateway/revocation';
import type {
  ApiKeyCredential,
  CredentialTarget,
  RevokeRequest,
  RevokeResponse,
} from '@token-gateway/schemas/identity';
import { isSecretOf } from './resolve.ts';
import type { CredentialStore, NewChange } from './store/port.ts';

type About = Pick<NewChange, 'actor' | 'reason'>;

/** Resolves after the commit. */
export async function revoke(store: CredentialStore, request: RevokeRequest): Promise<RevokeResponse> {
  const { actor, reason, target } = request;
  const about: About = { actor, ...(reason === '' ? {} : { reason }) };
  switch (target?.$case) {
    case 'credential':
      return { found: await revokeCredential(store, target.value, about) };
    case 'apiKey':
      return { found: await revokeKey(store, target.value, about) };
    case undefined:
      return { found: false };
  }
}

async function revokeCredential(
  store: CredentialStore,
  { signingInputSha256, providerId, tenantId }: CredentialTarget,
  about: About,
): Promise<boolean> {
  const owner = providerId === '' ? tenantId : await store.tenantOfProvider(providerId);
  if (owner === null) return false;
  await store.revokeCredential(signingInputSha256, {
    ...about,
    type: 'tg.session.revoked',
    subjects: [credentialSubject(signingInputSha256.toString('hex'))],
    details: { ...(owner === '' ? {} : { tenantId: owner }), ...(providerId === '' ? {} : { providerId }) },
  });
  return true;
}

async function revokeKey(
  store: CredentialStore,
  { keyId, secretSha256 }: ApiKeyCredential,
  about: About,
): Promise<boolean> {
  const { state } = await store.apiKey(keyId);
  if (!isSecretOf(state, secretSha256) || state === null) return false;
  await store.revokeKey(keyId, {
    ...about,
    type: 'tg.key.revoked',
    subjects: [keySubject(keyId)],
    details: { keyId, tenantId: state.tenant.id, userId: state.user.id },
  });
  return true;
}
