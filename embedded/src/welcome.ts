import { demoUsers } from './demo.ts';
import type { Embedded } from './embedded.ts';

/** Lines to paste into bash one after the other: a call, its revocation, and the refusal with the time it took. */
export function demoCommands({ urls, adminKey, tenants: [tenant] }: Embedded): readonly [string, string, string] {
  if (tenant === undefined) throw new Error('no demo tenant');
  const call = `${urls.edge}/orders/1 -H 'Authorization: Token ${tenant.key}'`;
  const revoke = `${urls.identity}/v1/api-keys/${tenant.keyId}/revoke -H 'Authorization: Token ${adminKey}'`;
  return [
    `curl -sS ${call}; echo`,
    `curl -sS -X POST ${revoke}; revoked=$(date +%s%3N); echo`,
    `begin=$(date +%s%3N); until [ "$(curl -s -o /dev/null -w '%{http_code}' ${call})" = 401 ]; do :; done; ` +
      `end=$(date +%s%3N); echo "refused $((end - begin)) ms after asking began, ` +
      `$((end - \${revoked:-$begin})) ms after the revocation was answered"`,
  ];
}

/** A call with a token of the development provider, in one line. */
export function demoTokenCommand({ urls, devPassword }: Embedded): string {
  const [user] = demoUsers;
  const token =
    `curl -sS -u '${user?.login}:${devPassword}' -d grant_type=client_credentials ${urls.devProvider}/token` +
    ` | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/'`;
  return `curl -sS ${urls.edge}/orders/1 -H "Authorization: Bearer $(${token})"; echo`;
}

export function welcome(embedded: Embedded): string {
  const { urls, addresses, adminKey, tenants } = embedded;
  const [call, revoke, refusal] = demoCommands(embedded);
  const rows = [
    ['edge', urls.edge],
    ['auth server', urls.authServer],
    ['identity REST', urls.identity],
    ['demo upstream', urls.upstream],
    ['development provider', urls.devProvider],
    ['metrics and health', `${urls.metrics}/metrics`],
    ['ext_authz gRPC', addresses.extAuthz],
    ['identity gRPC', addresses.identity],
    ['admin key', adminKey],
    ...tenants.map(({ slug, key, maxStalenessMs }) => [`key of ${slug} (${maxStalenessMs} ms)`, key]),
  ];
  return `${rows.map(([name = '', value = '']) => `  ${name.padEnd(24)}${value}`).join('\n')}

1. Call the demo upstream through the edge:

${call}

2. Revoke the key that was used:

${revoke}

3. Call again until it is refused:

${refusal}

The same with a token of the development provider:

${demoTokenCommand(embedded)}
`;
}
