/** OpenID Connect Back-Channel Logout 1.0, from the wire to the change in the log, with the real identity service. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, suite, test } from 'node:test';
import type { JWTHeaderParameters } from 'jose';
import { type LocalProvider, startLocalProvider } from '../local-provider.testing.ts';
import { type OAuthWorld, startOAuthWorld } from '../oauth.testing.ts';

const event = 'http://schemas.openid.net/event/backchannel-logout';
const type = { typ: 'logout+jwt' };

let world: OAuthWorld;
let stranger: LocalProvider;
before(async () => {
  world = await startOAuthWorld({ gateway: {} });
  stranger = await startLocalProvider(world.clock);
});
after(async () => {
  await stranger[Symbol.asyncDispose]();
  await world[Symbol.asyncDispose]();
});

async function send(parameters: Record<string, string>) {
  const response = await world.authServer.app.inject({
    method: 'POST',
    url: '/signals/back-channel-logout',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    payload: new URLSearchParams(parameters).toString(),
  });
  return { status: response.statusCode, body: response.json(), headers: response.headers };
}
const logOut = async (token: string) => (await send({ logout_token: token })).status;

function logoutToken(claims: Record<string, unknown>, header: object = type): Promise<string> {
  return world.provider.sign(
    { events: { [event]: {} }, jti: randomUUID(), sub: undefined, ...claims },
    header as Partial<JWTHeaderParameters>,
  );
}

/** What an access token becomes: `granted`, or the code it is refused with. */
async function outcomeOf(token: string): Promise<unknown> {
  const { status, body } = await world.exchange('gateway', token);
  return status === 200 ? 'granted' : body['code'];
}

type LoggedChange = Record<string, unknown> & { readonly seq: number };
async function changesAfter(seq: number): Promise<LoggedChange[]> {
  const answer = (await world.admin('GET', `/v1/changes?after=${seq}`)) as unknown as { items: LoggedChange[] };
  return answer.items;
}
const newestSeq = async () => (await world.identity.client.listProviders({ timeoutMs: 5000 })).seq;

suite('back-channel logout', () => {
  test('a session that ended at its provider is refused, and another of the user is not', async () => {
    const { audience, providerId, tenantId } = await world.createProvider();
    const [ended, kept] = await Promise.all(['a', 'b'].map((sid) => world.provider.sign({ aud: audience, sid })));
    assert.deepEqual([await outcomeOf(ended ?? ''), await outcomeOf(kept ?? '')], ['granted', 'granted']);
    const before = await newestSeq();
    const answer = await send({ logout_token: await logoutToken({ aud: audience, sub: 'somebody', sid: 'a' }) });
    assert.deepEqual([answer.status, answer.body], [200, {}]);
    assert.equal(answer.headers['cache-control'], 'no-store');
    assert.deepEqual([await outcomeOf(ended ?? ''), await outcomeOf(kept ?? '')], ['session_revoked', 'granted']);
    const [change, ...others] = await changesAfter(before);
    assert.deepEqual(others, []);
    assert.deepEqual(
      [change?.['type'], change?.['subjects'], change?.['actor'], change?.['reason']],
      ['tg.session.revoked', [`session:${providerId}:a`], `provider:${providerId}`, 'backchannel-logout'],
    );
    assert.deepEqual(change?.['details'], { issuer: world.provider.issuer, tenantId, providerId });
    const audited = world.audited.find((record) => record.type === 'tg.audit.signal.received');
    assert.deepEqual(
      [audited?.type, audited?.data],
      [
        'tg.audit.signal.received',
        { tenantId, providerId, kind: 'back-channel-logout', event: 'backchannel-logout', outcome: 'applied' },
      ],
    );
  });

  test('a logout without a session ends all that the user was given until then, and nothing of later', async () => {
    const { audience, providerId } = await world.createProvider();
    const before = await world.provider.sign({ aud: audience, sid: 'a' });
    const other = await world.provider.sign({ aud: audience, sub: 'another' });
    const token = await logoutToken({ aud: audience, sub: 'somebody' });
    await outcomeOf(before);
    assert.equal(await logOut(token), 200);
    assert.equal(await outcomeOf(before), 'session_revoked');
    assert.equal(await outcomeOf(other), 'granted');
    await world.clock.advance(6000);
    const later = await world.provider.sign({ aud: audience, sid: 'b' });
    assert.equal(await outcomeOf(later), 'granted');
    const seq = await newestSeq();
    assert.equal(await logOut(token), 200, 'a repetition is answered alike');
    assert.equal(await outcomeOf(later), 'granted', 'and ends nothing of what came meanwhile');
    assert.deepEqual(await changesAfter(seq), []);
    const received = world.audited.findLast((record) => record.type === 'tg.audit.signal.received');
    assert.ok(received?.type === 'tg.audit.signal.received' && received.data.providerId === providerId);
    assert.equal(received.data.outcome, 'repeated');
  });

  test('the cut-off is when the token was issued, not when it came', async () => {
    const { audience } = await world.createProvider();
    const token = await logoutToken({ aud: audience, sub: 'somebody' });
    await world.clock.advance(10_000);
    const since = await world.provider.sign({ aud: audience });
    assert.equal(await logOut(token), 200);
    assert.equal(await outcomeOf(since), 'granted');
  });

  test('whom the tokens of a provider name by another claim, its logout tokens name so too', async () => {
    const { audience } = await world.createProvider({ claimMapping: { subject: 'uid' } });
    const access = await world.provider.sign({ aud: audience, uid: 'u-1' });
    assert.equal(await outcomeOf(access), 'granted');
    assert.equal(await logOut(await logoutToken({ aud: audience, sub: 'somebody' })), 400);
    assert.equal(await outcomeOf(access), 'granted');
    assert.equal(await logOut(await logoutToken({ aud: audience, sub: 'somebody', uid: 'u-1' })), 200);
    assert.equal(await outcomeOf(access), 'session_revoked');
  });

  test('a logout token is for a client: of the list, else an authorized party or an audience', async () => {
    const logout = async (rules: object, aud: (audience: string) => unknown) => {
      const { audience } = await world.createProvider(rules);
      return logOut(await logoutToken({ aud: aud(audience), sid: 's' }));
    };
    const parties = { authorizedParties: ['app'] };
    assert.equal(await logout(parties, () => 'app'), 200);
    assert.equal(await logout(parties, (audience) => [audience, 'x']), 200);
    assert.equal(await logout({ ...parties, logoutAudiences: ['web'] }, () => 'web'), 200);
    assert.equal(await logout({ ...parties, logoutAudiences: ['web2'] }, (audience) => audience), 400);
    assert.equal(await logout(parties, () => 'nobody'), 400);
    assert.equal(await logout(parties, () => undefined), 400);
  });

  test('a logout at one tenant of an issuer is none at another', async () => {
    const [one, other] = [await world.createProvider(), await world.createProvider()];
    const token = await world.provider.sign({ aud: other.audience, sid: 's' });
    assert.equal(await outcomeOf(token), 'granted');
    assert.equal(await logOut(await logoutToken({ aud: one.audience, sid: 's' })), 200);
    assert.equal(await outcomeOf(token), 'granted');
    assert.equal(await logOut(await logoutToken({ aud: [one.audience, other.audience], sid: 's' })), 200);
    assert.equal(await outcomeOf(token), 'session_revoked');
  });

  test('where one of several providers cannot be decided, the others hear it, and it is to be sent again', async () => {
    const logoutAudiences = ['shared'];
    const { audience } = await world.createProvider({ logoutAudiences });
    const away = await world.createProvider({ logoutAudiences, jwksUri: 'http://127.0.0.1:1/jwks' });
    const [token, other] = await Promise.all(
      [audience, away.audience].map((aud) => world.provider.sign({ aud, sid: 's' })),
    );
    const logout = await logoutToken({ aud: 'shared', sid: 's' });
    assert.equal(await logOut(logout), 503);
    assert.equal(await outcomeOf(token ?? ''), 'session_revoked');
    await world.admin('PATCH', `/v1/providers/${away.providerId}`, { jwksUri: null });
    assert.equal(await logOut(logout), 200);
    assert.equal(await outcomeOf(other ?? ''), 'session_revoked');
  });

  const now = () => Math.floor(world.clock.now().wallMs / 1000);
  const bad: Record<string, (audience: string) => Promise<string>> = {
    'the type of an access token': (aud) => logoutToken({ aud, sid: 's' }, { typ: 'at+jwt' }),
    'the type of a security event': (aud) => logoutToken({ aud, sid: 's' }, { typ: 'secevent+jwt' }),
    'no events: an ID token': (aud) => world.provider.sign({ aud, sid: 's', jti: '1' }),
    'no events, with its type': (aud) => logoutToken({ aud, sid: 's', events: undefined }),
    'events that are no object': (aud) => logoutToken({ aud, sid: 's', events: [event] }),
    'another event': (aud) => logoutToken({ aud, sid: 's', events: { [`${event}-x`]: {} } }),
    'an event that is no object': (aud) => logoutToken({ aud, sid: 's', events: { [event]: true } }),
    'an event that is a list': (aud) => logoutToken({ aud, sid: 's', events: { [event]: [] } }),
    'a nonce': (aud) => logoutToken({ aud, sid: 's', nonce: 'n' }),
    'neither session nor subject': (aud) => logoutToken({ aud }),
    'a session that is no text': (aud) => logoutToken({ aud, sid: { s: 1 } }),
    'a session with a control character': (aud) => logoutToken({ aud, sid: 's\0' }),
    'no jti': (aud) => logoutToken({ aud, sid: 's', jti: undefined }),
    'no iat': (aud) => logoutToken({ aud, sid: 's', iat: undefined }),
    'an iat to come': (aud) => logoutToken({ aud, sid: 's', iat: now() + 6, exp: now() + 60 }),
    'no exp': (aud) => logoutToken({ aud, sid: 's', exp: undefined }),
    'an exp that has passed': (aud) => logoutToken({ aud, sid: 's', iat: now() - 60, exp: now() - 5 }),
    'an issuer that nobody has': (aud) => logoutToken({ aud, sid: 's', iss: 'https://nobody.example.com' }),
    'the keys of another provider': (aud) =>
      stranger.sign({ aud, sid: 's', iss: world.provider.issuer, events: { [event]: {} }, jti: '1' }, type),
    'no signature': async (aud) => `${(await logoutToken({ aud, sid: 's' })).replace(/\.[^.]*$/, '')}.`,
    'an algorithm of nobody': (aud) => world.provider.sign({ aud, sid: 's' }).then((token) => `e30${token.slice(3)}`),
    'no token': async () => 'x',
  };
  for (const [name, make] of Object.entries(bad)) {
    test(`a logout token with ${name} is refused, like every other, and changes nothing`, async () => {
      const { audience } = await world.createProvider();
      const seq = await newestSeq();
      const answer = await send({ logout_token: await make(audience) });
      assert.deepEqual(answer.body, {
        error: 'invalid_request',
        error_description: 'The logout token is not valid.',
      });
      assert.equal(answer.status, 400);
      assert.deepEqual(await changesAfter(seq), []);
    });
  }

  test('a token signed by an algorithm that the provider does not have is refused', async () => {
    const { audience } = await world.createProvider({ algorithms: ['RS256'] });
    assert.equal(await logOut(await logoutToken({ aud: audience, sid: 's' })), 400);
  });

  test('older providers send no type, or JWT', async () => {
    const { audience } = await world.createProvider();
    assert.equal(await logOut(await logoutToken({ aud: audience, sid: 's' }, { typ: 'JWT' })), 200);
    assert.equal(await logOut(await logoutToken({ aud: audience, sid: 't' }, { typ: undefined })), 200);
  });

  test('what is refused is audited, counted within a second', async () => {
    const before = world.audited.length;
    await world.clock.advance(1000);
    await logOut('x');
    await logOut('x');
    await world.clock.advance(1000);
    const refused = world.audited.slice(before).findLast(({ type: name }) => name === 'tg.audit.signal.refused');
    assert.ok(refused?.type === 'tg.audit.signal.refused');
    const { since, ...data } = refused.data;
    assert.equal(typeof since, 'string');
    assert.deepEqual(data, { kind: 'back-channel-logout', code: 'credential_malformed', count: 2 });
  });

  test('no logout token, or two, is a request that is not valid; and a provider that is away is to be asked again', async () => {
    assert.equal((await send({})).status, 400);
    const { audience } = await world.createProvider();
    const token = await logoutToken({ aud: audience, sid: 's' });
    const twice = await world.authServer.app.inject({
      method: 'POST',
      url: '/signals/back-channel-logout',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      payload: `logout_token=${token}&logout_token=${token}`,
    });
    assert.equal(twice.statusCode, 400);
    world.provider.isDown = true;
    const away = await send({ logout_token: token });
    world.provider.isDown = false;
    assert.deepEqual([away.status, away.headers['retry-after']], [503, '1']);
    await world.clock.advance(1000);
    assert.equal(await logOut(token), 200, 'the very same token, later');
  });
});
