/**
 * A login as a person does it, without the person: the authorization code flow with PKCE (RFC 7636) of a public client
 * that follows redirects, keeps cookies and fills in the forms that it is shown.
 * @module
 */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';

export interface Login {
  readonly issuer: string;
  readonly clientId: string;
  readonly redirectUri: string;
  readonly scope: string;
  /** Resource indicator (RFC 8707). */
  readonly resource?: string;
  /** What is typed, by the names of the inputs. */
  readonly fields: Readonly<Record<string, string>>;
  /** Of the browser; absent: it has none yet. */
  readonly cookies?: Map<string, string>;
}

export interface Tokens {
  readonly access_token: string;
  readonly id_token: string;
  readonly refresh_token?: string;
}

const pagesMax = 12;

interface Discovery {
  readonly authorization_endpoint: string;
  readonly token_endpoint: string;
  readonly end_session_endpoint: string;
}

async function discover(issuer: string): Promise<Discovery> {
  return (await (await fetch(`${issuer}/.well-known/openid-configuration`)).json()) as Discovery;
}

export async function logIn(login: Login): Promise<Tokens> {
  const { issuer, clientId, redirectUri, scope } = login;
  const discovery = await discover(issuer);
  const verifier = randomBytes(32).toString('base64url');
  const state = randomBytes(16).toString('base64url');
  const resource: Record<string, string> = login.resource === undefined ? {} : { resource: login.resource };
  const query = new URLSearchParams({
    client_id: clientId,
    redirect_uri: redirectUri,
    response_type: 'code',
    scope,
    state,
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
    ...resource,
  });
  const returned = await browse(`${discovery.authorization_endpoint}?${query}`, login);
  assert.equal(returned.searchParams.get('state'), state, returned.search);
  const response = await fetch(discovery.token_endpoint, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'authorization_code',
      client_id: clientId,
      redirect_uri: redirectUri,
      code: returned.searchParams.get('code') ?? '',
      code_verifier: verifier,
      ...resource,
    }),
  });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  return JSON.parse(text) as Tokens;
}

/** Ends the session of a browser at the provider (OpenID Connect RP-Initiated Logout 1.0), who asks whether that is meant. */
export async function logOut(
  { issuer, clientId, redirectUri, cookies }: Pick<Login, 'issuer' | 'clientId' | 'redirectUri' | 'cookies'>,
  idToken: string,
): Promise<void> {
  const { end_session_endpoint: endpoint } = await discover(issuer);
  const query = { id_token_hint: idToken, client_id: clientId, post_logout_redirect_uri: redirectUri };
  const fields = { logout: 'yes' };
  await browse(`${endpoint}?${new URLSearchParams(query)}`, { redirectUri, fields, ...(cookies && { cookies }) });
}

/** Resolves with the address that the provider sends the browser back to. */
async function browse(
  start: string,
  { redirectUri, fields, cookies = new Map<string, string>() }: Pick<Login, 'redirectUri' | 'fields' | 'cookies'>,
): Promise<URL> {
  let url = new URL(start);
  let body: URLSearchParams | null = null;
  for (let page = 0; page < pagesMax; page += 1) {
    const response: Response = await fetch(url, {
      redirect: 'manual',
      headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
      ...(body === null ? {} : { method: 'POST', body }),
    });
    for (const cookie of response.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]*)=([^;]*)/.exec(cookie) ?? [];
      if (value === '') cookies.delete(name);
      else cookies.set(name, value);
    }
    const html = await response.text();
    const location = response.headers.get('location');
    if (location !== null) {
      url = new URL(location, url);
      if (url.href.startsWith(redirectUri)) return url;
      body = null;
      continue;
    }
    const form = formOf(html);
    assert.ok(response.status === 200 && form !== null, `no form: ${response.status} ${html}`);
    url = new URL(form.action, url);
    body = new URLSearchParams({ ...form.hidden, ...fields });
  }
  throw new Error(`not sent back within ${pagesMax} pages; at ${url.origin}${url.pathname}`);
}

function formOf(html: string): { action: string; hidden: Record<string, string> } | null {
  const form = /<form\b[^>]*>/.exec(html)?.[0];
  if (form === undefined) return null;
  const hidden: Record<string, string> = {};
  for (const [input] of html.matchAll(/<input\b[^>]*>/g)) {
    const name = attribute(input, 'name');
    if (name !== null && attribute(input, 'type') === 'hidden') hidden[name] = attribute(input, 'value') ?? '';
  }
  return { action: attribute(form, 'action') ?? '', hidden };
}

function attribute(tag: string, name: string): string | null {
  const value = new RegExp(`\\s${name}="([^"]*)"`).exec(tag)?.[1];
  return value?.replaceAll('&amp;', '&') ?? null;
}
