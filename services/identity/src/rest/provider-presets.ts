/** How the access tokens of well-known products are read, as these issue them without any configuration of claims. */
import type { ClaimMapping, ProviderRules } from '@token-gateway/schemas';

export const presetNames = ['okta', 'auth0', 'keycloak', 'entra', 'google', 'cognito'] as const;
export type PresetName = (typeof presetNames)[number];

interface Preset {
  readonly algorithms?: readonly ('RS256' | 'PS256')[];
  readonly claimMapping: ClaimMapping;
  readonly rules: ProviderRules;
}

export const presets: Readonly<Record<PresetName, Preset>> = {
  // `sub` is the login, which a person may hand on to another; `uid` stays, and is `sub` of ID and logout tokens.
  okta: {
    algorithms: ['RS256'],
    claimMapping: {
      subject: { cel: 'has(claims.uid) ? claims.uid : claims.sub' },
      scope: 'scp',
      entitlements: 'groups',
    },
    rules: { condition: 'has(claims.cid)' },
  },
  // The profile of RFC 9068 names the client in `client_id`, Auth0's own in `azp`.
  auth0: {
    algorithms: ['RS256', 'PS256'],
    claimMapping: { entitlements: 'permissions' },
    rules: { condition: 'has(claims.azp) || has(claims.client_id)' },
  },
  // Keycloak says in a claim of its own what a token is for.
  keycloak: {
    claimMapping: { entitlements: 'realm_access.roles' },
    rules: { condition: 'claims.typ == "Bearer"' },
  },
  // `sub` differs from client to client; `oid` is the same in the whole directory. `email` is what an administrator or a
  // guest wrote, unless xms_edov says that its domain was verified.
  entra: {
    algorithms: ['RS256'],
    claimMapping: {
      subject: 'oid',
      emailVerified: { cel: 'has(claims.xms_edov) && claims.xms_edov == true' },
      scope: 'scp',
      entitlements: 'roles',
    },
    rules: { condition: 'has(claims.azp) || has(claims.appid)' },
  },
  // Access tokens of Google are no JWTs.
  google: {
    algorithms: ['RS256'],
    claimMapping: {},
    rules: { tokenType: 'id_token' },
  },
  // Access tokens of Cognito name the client, and no audience; all of one login have its origin_jti.
  cognito: {
    algorithms: ['RS256'],
    claimMapping: { displayName: 'username', entitlements: 'cognito:groups', sessionId: 'origin_jti' },
    rules: { audienceClaim: 'client_id', condition: 'claims.token_use == "access"' },
  },
};
