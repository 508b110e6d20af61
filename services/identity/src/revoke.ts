/**
 * Ends a credential for another service, which verified that somebody has it: a JWT by its signing input, a key by its
 * secret, or by the hash of the whole where another system made it.
 * @module
 */
import { credentialSubject, keySubject } from '@token-gateway/revocation';
import type {
  ApiKeyCredential,
  CredentialTarget,
  ImportedKeyCredential,
  RevokeRequest,
  RevokeResponse,
} from '@token-gateway/schemas/identity';
import { isSecretOf } from './resolve.ts';
import type { ApiKeyState, CredentialStore, NewChange } from './store/port.ts';

const nothing: RevokeResponse = { found: false, keyId: '' };

type About = Pick<NewChange, 'actor' | 'reason'>;

/** Resolves after the commit. */
export async function revoke(store: CredentialStore, request: RevokeRequest): Promise<RevokeResponse> {
  const { actor, reason, target } = request;
  const about: About = { actor, ...(reason === '' ? {} : { reason }) };
  switch (target?.$case) {
    case 'credential':
      return { found: await revokeCredential(store, target.value, about), keyId: '' };
    case 'apiKey':
      return revokeKey(store, await ownedBySecret(store, target.value), about);
    case 'importedKey':
      return revokeKey(store, await ownedByHash(store, target.value), about);
    case undefined:
      return nothing;
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

interface OwnedKey {
  readonly keyId: string;
  readonly state: ApiKeyState;
}

async function ownedBySecret(
  store: CredentialStore,
  { keyId, secretSha256 }: ApiKeyCredential,
): Promise<OwnedKey | null> {
  const { state } = await store.apiKey(keyId);
  return isSecretOf(state, secretSha256) && state !== null ? { keyId, state } : null;
}

/** The one who can name its SHA-256 has the key, as when it is used. */
async function ownedByHash(store: CredentialStore, { sha256 }: ImportedKeyCredential): Promise<OwnedKey | null> {
  const { state } = await store.importedKey(sha256);
  return state === null ? null : { keyId: state.id, state };
}

async function revokeKey(store: CredentialStore, owned: OwnedKey | null, about: About): Promise<RevokeResponse> {
  if (owned === null) return nothing;
  const { keyId, state } = owned;
  await store.revokeKey(keyId, {
    ...about,
    type: 'tg.key.revoked',
    subjects: [keySubject(keyId)],
    details: { keyId, tenantId: state.tenant.id, userId: state.user.id },
  });
  return { found: true, keyId };
}
