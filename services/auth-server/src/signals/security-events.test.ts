/** OpenID Shared Signals by push (RFC 8935), from the wire to the change in the log, with the real identity service. */
import assert from 'node:assert/strict';
import { hash, randomUUID } from 'node:crypto';
import { after, before, suite, test } from 'node:test';
import type { JWTHeaderParameters } from 'jose';
import { type LocalProvider, startLocalProvider } from '../local-provider.testing.ts';
import { type OAuthWorld, startOAuthWorld } from '../oauth.testing.ts';

const caep = 'https://schemas.openid.net/secevent/caep/event-type/';
const risc = 'https://schemas.openid.net/secevent/risc/event-type/';
const type = { typ: 'secevent+jwt' };

let world: OAuthWorld;
/** A transmitter whose issuer is another than that of the tokens. */
let transmitter: LocalProvider;
before(async () => {
  world = await startOAuthWorld({ gateway: {} });
  transmitter = await startLocalProvider(world.clock);
});
after(async () => {
  await transmitter[Symbol.asyncDispose]();
  await world[Symbol.asyncDispose]();
});

async function push(token: string, headers: Record<string, string> = {}) {
  const response = await world.authServer.app.inject({
    method: 'POST',
    url: '/signals/security-events',
    headers: { 'content-type': 'application/secevent+jwt', accept: 'application/json', ...headers },
    payload: token,
  });
  const body = response.body === '' ? null : (response.json() as { err: string; description: string });
  return { status: response.statusCode, body, headers: response.headers };
}
const said = async (token: string, headers = {}) => {
  const { status, body } = await push(token, headers);
  return status === 202 ? 'received' : `${status} ${body?.err}`;
};

const issSub = (sub = 'somebody') => ({ format: 'iss_sub', iss: world.provider.issuer, sub });

/** A security event token as OpenID Shared Signals 1.0 section 4.1 has it: no `sub`, no `exp`. */
function eventToken(claims: Record<string, unknown>, header: object = type, by = world.provider): Promise<string> {
  const defaults = { jti: randomUUID(), sub: undefined, exp: undefined, sub_id: issSub() };
  return by.sign({ ...defaults, ...claims }, header as Partial<JWTHeaderParameters>);
}
const eventOf = (audience: string, event: string, claims: object = {}, body: object = {}) =>
  eventToken({ aud: audience, events: { [event]: body }, ...claims });

const hearing = (rules: object = {}) => world.createProvider({ securityEvents: {}, ...rules });

async function outcomeOf(token: string): Promise<unknown> {
  const { status, body } = await world.exchange('gateway', token);
  return status === 200 ? 'granted' : body['code'];
}
async function userOf(tenantId: string): Promise<{ id: string; status: string }> {
  const { items } = (await world.admin('GET', `/v1/tenants/${tenantId}/users`)) as unknown as {
    items: { id: string; status: string }[];
  };
  const [user] = items;
  assert.ok(user !== undefined && items.length === 1);
  return user;
}
async function changesAfter(seq: number) {
  const { items } = (await world.admin('GET', `/v1/changes?after=${seq}`)) as unknown as {
    items: { type: string; subjects: string[]; actor: string; reason?: string }[];
  };
  return items;
}
const newestSeq = async () => (await world.identity.client.listProviders({ timeoutMs: 5000 })).seq;

suite('security events', () => {
  const ending = [
    `${caep}session-revoked`,
    `${caep}credential-change`,
    `${caep}token-claims-change`,
    `${risc}account-credential-change-required`,
    `${risc}credential-compromise`,
    `${risc}sessions-revoked`,
    'https://schemas.openid.net/secevent/oauth/event-type/tokens-revoked',
  ];
  for (const event of ending) {
    test(`${event} of an account ends what was issued to it until then, and nothing of later`, async () => {
      const { audience, providerId } = await hearing();
      const [token, other] = await Promise.all(
        ['somebody', 'another'].map((sub) => world.provider.sign({ aud: audience, sub })),
      );
      assert.equal(await outcomeOf(token ?? ''), 'granted');
      const seq = await newestSeq();
      const answer = await push(await eventOf(audience, event));
      assert.deepEqual([answer.status, answer.body], [202, null]);
      assert.equal(await outcomeOf(token ?? ''), 'session_revoked');
      assert.equal(await outcomeOf(other ?? ''), 'granted');
      const [change] = await changesAfter(seq);
      const { type: changed, subjects, actor, reason } = change ?? {};
      assert.deepEqual(
        [changed, subjects, actor, reason],
        ['tg.session.revoked', [`external:${providerId}:somebody`], `provider:${providerId}`, event.split('/').at(-1)],
      );
      await world.clock.advance(6000);
      assert.equal(await outcomeOf(await world.provider.sign({ aud: audience })), 'granted');
    });
  }

  test('a session that is named ends, and another of the user does not', async () => {
    const { audience } = await hearing();
    const [ended, kept] = await Promise.all(['a', 'b'].map((sid) => world.provider.sign({ aud: audience, sid })));
    const session = { format: 'opaque', id: 'a' };
    const sub_id = { format: 'complex', user: issSub(), session, tenant: { format: 'opaque', id: 't' } };
    assert.equal(await said(await eventOf(audience, `${caep}session-revoked`, { sub_id })), 'received');
    assert.deepEqual([await outcomeOf(ended ?? ''), await outcomeOf(kept ?? '')], ['session_revoked', 'granted']);
  });

  test('the cut-off is when it happened, in seconds, or as drafts had it in milliseconds, else when it was told', async () => {
    const issuedAt = () => Math.floor(world.clock.now().wallMs / 1000);
    for (const [claims, body, isEnded] of [
      [{}, { event_timestamp: issuedAt() - 100 }, false],
      [{}, { event_timestamp: (issuedAt() - 100) * 1000 }, false],
      [{ toe: issuedAt() - 100 }, {}, false],
      [{}, { event_timestamp: issuedAt() + 1000 }, true],
      [{}, { event_timestamp: 'x' }, true],
      [{}, {}, true],
    ] as const) {
      const { audience } = await hearing();
      const token = await world.provider.sign({ aud: audience });
      assert.equal(await said(await eventOf(audience, `${caep}credential-change`, claims, body)), 'received');
      assert.equal(await outcomeOf(token), isEnded ? 'session_revoked' : 'granted', JSON.stringify(body));
    }
  });

  test('a disabled account is a disabled user, with all credentials, until the same provider enables it', async () => {
    const { audience, tenantId, providerId } = await hearing();
    const token = await world.provider.sign({ aud: audience });
    assert.equal(await outcomeOf(token), 'granted');
    const { id } = await userOf(tenantId);
    const seq = await newestSeq();
    const disabled = await eventOf(audience, `${risc}account-disabled`, {}, { reason: 'hijacking' });
    assert.equal(await said(disabled), 'received');
    assert.equal((await userOf(tenantId)).status, 'disabled');
    const [change, ...others] = await changesAfter(seq);
    assert.deepEqual(others, []);
    assert.deepEqual(
      [change?.type, change?.subjects],
      ['tg.user.disabled', [`user:${id}`, `external:${providerId}:somebody`]],
    );
    assert.equal(await said(await eventOf(audience, `${risc}account-enabled`)), 'received');
    assert.equal((await userOf(tenantId)).status, 'active');
    assert.equal(await outcomeOf(token), 'session_revoked', 'what was issued before it was disabled stays ended');
    await world.clock.advance(6000);
    assert.equal(await outcomeOf(await world.provider.sign({ aud: audience })), 'granted');
    assert.equal(await said(disabled), 'received', 'a repetition is answered alike');
    assert.equal((await userOf(tenantId)).status, 'active', 'and disables nobody again');
  });

  test('a provider enables nobody whom an administrator disabled, or has disabled as well', async () => {
    const { audience, tenantId } = await hearing();
    assert.equal(await outcomeOf(await world.provider.sign({ aud: audience })), 'granted');
    const { id } = await userOf(tenantId);
    const signal = async (name: string) => said(await eventOf(audience, risc + name));
    await world.admin('POST', `/v1/users/${id}/disable`);
    assert.equal(await signal('account-disabled'), 'received');
    assert.equal(await signal('account-enabled'), 'received');
    assert.equal((await userOf(tenantId)).status, 'disabled');
    await world.admin('POST', `/v1/users/${id}/enable`);
    await signal('account-disabled');
    await world.admin('POST', `/v1/users/${id}/disable`);
    await signal('account-enabled');
    assert.equal((await userOf(tenantId)).status, 'disabled');
    await world.admin('POST', `/v1/users/${id}/enable`);
    assert.equal((await userOf(tenantId)).status, 'active');
  });

  test('an older word of a provider does not undo its newer one, in whatever order they come', async () => {
    const { audience, tenantId } = await hearing({ provisioning: 'jit' });
    await world.exchange('gateway', await world.provider.sign({ aud: audience }));
    const now = Math.floor(world.clock.now().wallMs / 1000);
    const say = async (event: string, toe: number) =>
      assert.equal(await said(await eventOf(audience, `${risc}account-${event}`, { iat: toe, toe })), 'received');
    await say('disabled', now);
    await say('enabled', now - 3600);
    assert.equal((await userOf(tenantId)).status, 'disabled');
    // Repeated for an earlier time, it is not of less weight.
    await say('disabled', now - 60);
    await say('enabled', now - 30);
    assert.equal((await userOf(tenantId)).status, 'disabled');
    await world.clock.advance(2000);
    await say('enabled', now + 1);
    assert.equal((await userOf(tenantId)).status, 'active');
  });

  test('of an address all who have it end, so that nobody hides behind another; none of them is enabled', async () => {
    const { audience, tenantId } = await hearing({ provisioning: 'jit', linkBy: 'verified_email' });
    const address = { email: 'ada@example.com', email_verified: true };
    await world.admin('POST', `/v1/tenants/${tenantId}/users`, { email: address.email, displayName: 'Ada' });
    const one = await world.provider.sign({ aud: audience, sub: 'one', ...address });
    const two = await world.provider.sign({ aud: audience, sub: 'two', ...address, email_verified: false });
    assert.deepEqual([await outcomeOf(one), await outcomeOf(two)], ['granted', 'granted']);
    const sub_id = { format: 'email', email: address.email };
    assert.equal(await said(await eventOf(audience, `${risc}account-disabled`, { sub_id })), 'received');
    assert.deepEqual([await outcomeOf(one), await outcomeOf(two)], ['session_revoked', 'session_revoked']);
    const statuses = async () => {
      const { items } = await world.admin('GET', `/v1/tenants/${tenantId}/users`);
      return (items as unknown as { status: string }[]).map(({ status }) => status);
    };
    assert.deepEqual(await statuses(), ['disabled', 'disabled']);
    await world.clock.advance(2000);
    assert.equal(await said(await eventOf(audience, `${risc}account-enabled`, { sub_id })), 'received');
    assert.deepEqual(await statuses(), ['disabled', 'disabled']);
  });

  test('the subject of an account that is purged before it was ever seen makes no user', async () => {
    const { audience } = await hearing({ provisioning: 'jit' });
    assert.equal(await said(await eventOf(audience, `${risc}account-purged`)), 'received');
    await world.clock.advance(6000);
    assert.equal(await outcomeOf(await world.provider.sign({ aud: audience })), 'external_identity_blocked');
  });

  test('a provider whose keys are away makes nobody send again what is not for it', async () => {
    const { audience } = await hearing();
    const jwksUri = 'http://127.0.0.1:1/none';
    const audiences = ['https://elsewhere.example.com'];
    const { providerId } = await hearing({ securityEvents: { jwksUri, audiences } });
    assert.equal(await said(await eventOf(audience, `${caep}session-revoked`)), 'received');
    await world.admin('POST', `/v1/providers/${providerId}/disable`);
  });

  test('a purged account is a disabled user whom the provider brings no more', async () => {
    const { audience, tenantId } = await hearing();
    await outcomeOf(await world.provider.sign({ aud: audience }));
    assert.equal(await said(await eventOf(audience, `${risc}account-purged`)), 'received');
    assert.equal((await userOf(tenantId)).status, 'disabled');
    assert.equal(await said(await eventOf(audience, `${risc}account-enabled`)), 'received');
    assert.equal((await userOf(tenantId)).status, 'disabled');
    await world.clock.advance(6000);
    assert.equal(await outcomeOf(await world.provider.sign({ aud: audience })), 'external_identity_blocked');
  });

  test('an event about somebody who is not known yet ends what was issued until then all the same', async () => {
    const { audience } = await hearing();
    const token = await world.provider.sign({ aud: audience });
    assert.equal(await said(await eventOf(audience, `${risc}account-disabled`)), 'received');
    assert.equal(await outcomeOf(token), 'session_revoked');
  });

  test('events that take nothing away, and unknown ones, are received and change nothing; each is audited', async () => {
    const { audience, tenantId, providerId } = await hearing();
    const seq = await newestSeq();
    const nothing = [
      ['https://schemas.openid.net/secevent/ssf/event-type/verification', 'verification', { state: 'x' }],
      [`${caep}assurance-level-change`, 'assurance-level-change', {}],
      [`${caep}credential-change`, 'credential-change', { change_type: 'create' }],
      ['https://example.com/event/x', 'unknown', {}],
      [`${risc}account-enabled`, 'account-enabled', {}],
    ] as const;
    for (const [event, name, body] of nothing) {
      const stream = { format: 'opaque', id: 'stream' };
      assert.equal(await said(await eventOf(audience, event, { sub_id: stream }, body)), 'received');
      const record = world.audited.findLast((audited) => audited.type === 'tg.audit.signal.received');
      const data = { tenantId, providerId, kind: 'security-event', event: name, outcome: 'nothing_to_do' };
      assert.deepEqual(record?.data, data);
    }
    assert.deepEqual(await changesAfter(seq), []);
  });

  test('identifiers of RFC 9493, and of the drafts, name the same account', async () => {
    const identifiers: Record<string, object> = {
      opaque: { format: 'opaque', id: 'somebody' },
      aliases: { format: 'aliases', identifiers: [{ format: 'phone_number', phone_number: '+1' }, issSub()] },
      'a complex one': { format: 'complex', user: issSub() },
      'one of RISC before': { subject_type: 'iss-sub', iss: world.provider.issuer, sub: 'somebody' },
    };
    for (const [name, identifier] of Object.entries(identifiers)) {
      const { audience } = await hearing();
      const token = await world.provider.sign({ aud: audience });
      assert.equal(
        await said(await eventOf(audience, `${risc}credential-compromise`, { sub_id: identifier })),
        'received',
      );
      assert.equal(await outcomeOf(token), 'session_revoked', name);
      const inEvent = await hearing();
      const other = await world.provider.sign({ aud: inEvent.audience });
      const claims = { sub_id: undefined };
      const body = { subject: identifier };
      assert.equal(
        await said(await eventOf(inEvent.audience, `${risc}credential-compromise`, claims, body)),
        'received',
      );
      assert.equal(await outcomeOf(other), 'session_revoked', `${name}, in the event`);
    }
  });

  test('an address names somebody only where verified addresses link, and the provider has linked the one who has it', async () => {
    const email = { format: 'email', email: 'Alice@Example.com' };
    const event = async (audience: string) =>
      said(await eventOf(audience, `${risc}account-disabled`, { sub_id: email }));
    const plain = await hearing();
    assert.equal(await event(plain.audience), '400 invalid_request');
    const linking = await hearing({ linkBy: 'verified_email', provisioning: 'linked' });
    const { id } = await world.admin('POST', `/v1/tenants/${linking.tenantId}/users`, { email: 'alice@example.com' });
    assert.equal(await event(linking.audience), 'received');
    assert.equal((await userOf(linking.tenantId)).status, 'active', 'whom the provider never brought');
    const claims = { aud: linking.audience, email: 'alice@example.com', email_verified: true };
    const token = await world.provider.sign(claims);
    assert.equal(await outcomeOf(token), 'granted');
    assert.equal(await event(linking.audience), 'received');
    const user = await userOf(linking.tenantId);
    assert.deepEqual([user.id, user.status], [id, 'disabled']);
    assert.equal(await outcomeOf(token), 'session_revoked');
  });

  test('a transmitter of its own signs with its own keys, and speaks of the subjects of the provider', async () => {
    const securityEvents = {
      issuer: transmitter.issuer,
      jwksUri: `${transmitter.issuer}/jwks`,
      audiences: ['receiver'],
    };
    const { audience } = await hearing({ securityEvents });
    const token = await world.provider.sign({ aud: audience });
    const claims = { aud: 'receiver', events: { [`${caep}session-revoked`]: {} } };
    assert.equal(
      await said(await eventToken(claims)),
      '400 invalid_audience',
      'the provider itself, of its other streams',
    );
    const asTransmitter = { ...claims, iss: transmitter.issuer };
    assert.equal(await said(await eventToken(asTransmitter)), '400 invalid_key', "the provider's key");
    assert.equal(await outcomeOf(token), 'granted');
    const requests = transmitter.requestCount;
    for (const _ of [1, 2]) {
      assert.equal(await said(await eventToken(asTransmitter, type, transmitter)), 'received');
      await world.clock.advance(1000);
    }
    assert.equal(transmitter.requestCount, requests, 'its keys are kept');
    assert.equal(await outcomeOf(token), 'session_revoked');
  });

  test('where a bearer token is asked for, a push without it is refused, whoever signed the event', async () => {
    const secret = randomUUID();
    const { audience } = await hearing({ securityEvents: { bearerTokenSha256: hash('sha256', secret) } });
    const token = await eventOf(audience, `${caep}session-revoked`);
    // Only others hear it without one.
    const alone = (answer: string) => assert.ok(answer.startsWith('400'), answer);
    alone(await said(token));
    alone(await said(token, { authorization: 'Bearer x' }));
    const seq = await newestSeq();
    assert.equal(await said(token, { authorization: `Bearer ${secret}` }), 'received');
    assert.equal((await changesAfter(seq)).length, 1);
  });

  test('a provider that is not said to send events is not heard', async () => {
    const { audience } = await world.createProvider();
    const seq = await newestSeq();
    assert.notEqual(await said(await eventOf(audience, `${caep}session-revoked`)), 'received');
    assert.deepEqual(await changesAfter(seq), []);
  });

  test('an event at one tenant of an issuer is none at another', async () => {
    const [one, other] = [await hearing(), await hearing()];
    const token = await world.provider.sign({ aud: other.audience });
    assert.equal(await said(await eventOf(one.audience, `${caep}session-revoked`)), 'received');
    assert.equal(await outcomeOf(token), 'granted');
  });

  const now = () => Math.floor(world.clock.now().wallMs / 1000);
  const events = { [`${caep}session-revoked`]: {} };
  const bad: Record<string, [err: string, make: (aud: string) => Promise<string>]> = {
    'no type': ['invalid_request', (aud) => eventToken({ aud, events }, { typ: undefined })],
    'the type of a JWT': ['invalid_request', (aud) => eventToken({ aud, events }, { typ: 'JWT' })],
    'the type of an access token': ['invalid_request', (aud) => eventToken({ aud, events }, { typ: 'at+jwt' })],
    'the type of a logout token': ['invalid_request', (aud) => eventToken({ aud, events }, { typ: 'logout+jwt' })],
    'no events': ['invalid_request', (aud) => eventToken({ aud })],
    'an empty object as events': ['invalid_request', (aud) => eventToken({ aud, events: {} })],
    'an event that is no object': ['invalid_request', (aud) => eventToken({ aud, events: { [`${risc}x`]: 1 } })],
    'eleven events': [
      'invalid_request',
      (aud) =>
        eventToken({ aud, events: Object.fromEntries(Array.from({ length: 11 }, (_, n) => [`${risc}${n}`, {}])) }),
    ],
    'no jti': ['invalid_request', (aud) => eventToken({ aud, events, jti: undefined })],
    'no iat': ['invalid_request', (aud) => eventToken({ aud, events, iat: undefined })],
    'an iat to come': ['invalid_request', (aud) => eventToken({ aud, events, iat: now() + 6 })],
    'no subject': ['invalid_request', (aud) => eventToken({ aud, events, sub_id: undefined })],
    'a subject of another issuer': [
      'invalid_request',
      (aud) =>
        eventToken({ aud, events, sub_id: { format: 'iss_sub', iss: 'https://x.example.com', sub: 'somebody' } }),
    ],
    'a subject in a format that is not known': [
      'invalid_request',
      (aud) => eventToken({ aud, events, sub_id: { format: 'phone_number', phone_number: '+1' } }),
    ],
    'a subject with a control character': [
      'invalid_request',
      (aud) => eventToken({ aud, events, sub_id: { format: 'opaque', id: 'a\0' } }),
    ],
    'an audience of nobody': ['invalid_audience', () => eventToken({ aud: 'nobody', events })],
    'no audience': ['invalid_audience', () => eventToken({ aud: undefined, events })],
    'an issuer that nobody hears': [
      'invalid_issuer',
      (aud) => eventToken({ aud, events, iss: 'https://x.example.com' }),
    ],
    'the keys of somebody else': [
      'invalid_key',
      (aud) => eventToken({ aud, events, iss: world.provider.issuer }, type, transmitter),
    ],
    'no signature': [
      'invalid_request',
      async (aud) => `${(await eventToken({ aud, events })).replace(/\.[^.]*$/, '')}.`,
    ],
    'no token': ['invalid_request', async () => 'x'],
  };
  for (const [name, [err, make]] of Object.entries(bad)) {
    test(`an event token with ${name} is refused as ${err}, and changes nothing`, async () => {
      const { audience } = await hearing();
      const seq = await newestSeq();
      const answer = await push(await make(audience));
      assert.deepEqual([answer.status, answer.body?.err], [400, err]);
      assert.equal(answer.headers['content-language'], 'en');
      assert.deepEqual(await changesAfter(seq), []);
    });
  }

  test('under another media type nothing is read, and a transmitter that is away is asked to send again', async () => {
    const { audience } = await hearing();
    const token = await eventOf(audience, `${caep}session-revoked`);
    assert.equal(await said(token, { 'content-type': 'application/jwt' }), '400 invalid_request');
    world.provider.isDown = true;
    const away = await push(token);
    world.provider.isDown = false;
    assert.deepEqual([away.status, away.headers['retry-after']], [503, '1']);
    await world.clock.advance(1000);
    assert.equal(await said(token), 'received');
  });

  test('a security event is no access token, and no logout', async () => {
    const { audience } = await hearing();
    const token = await eventOf(audience, `${caep}session-revoked`, { sub: 'somebody', exp: now() + 60 });
    assert.equal(await outcomeOf(token), 'token_type_refused');
  });
});
