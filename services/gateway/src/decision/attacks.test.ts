/** The attacks on JWTs that show without a key: what the gateway refuses by itself, so that they cost nobody else anything. */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { checkStructure } from './credential.ts';

const wallMs = 1_790_000_000_000;
const exp = wallMs / 1000 + 300;

const encode = (text: string): string => Buffer.from(text).toString('base64url');
const header = '{"alg":"ES256","kid":"1","typ":"JWT"}';
const claims = `"iss":"https://issuer.example","sub":"s","aud":"api","exp":${exp}`;
const token = (headerText: string, claimsText: string, signature = 'c2ln'): string =>
  `${encode(headerText)}.${encode(claimsText)}.${signature}`;
const headed = (text: string): string => token(text, `{${claims}}`);
const typed = (typ: string): string => headed(JSON.stringify({ alg: 'ES256', typ }));
const written = (text: string): string => token(header, text);

const attacks: Record<string, readonly [code: string, token: string]> = {
  'an HMAC made with a public key': ['token_algorithm_refused', headed('{"alg":"HS256","kid":"1"}')],
  'alg none and no signature': ['token_algorithm_refused', token('{"alg":"none"}', `{${claims}}`, '')],
  'alg none in other letters': ['token_algorithm_refused', headed('{"alg":"NoNe"}')],
  'an alg that is a list': ['token_algorithm_refused', headed('{"alg":["ES256"]}')],
  'an empty signature': ['credential_malformed', token(header, `{${claims}}`, '')],
  'an unknown critical extension': ['token_claims_invalid', headed('{"alg":"ES256","crit":["x"],"x":1}')],
  'an empty list of critical extensions': ['token_claims_invalid', headed('{"alg":"ES256","crit":[]}')],
  'an unencoded payload (RFC 7797)': ['token_claims_invalid', headed('{"alg":"ES256","crit":["b64"],"b64":false}')],
  'a header member named twice': ['credential_malformed', headed('{"alg":"none","alg":"ES256"}')],
  'a header that is too large, such as of certificates': [
    'credential_malformed',
    headed(JSON.stringify({ alg: 'ES256', x5c: ['x'.repeat(4000)] })),
  ],
  'the type of a logout token': ['token_type_refused', typed('logout+jwt')],
  'the type of a security event': ['token_type_refused', typed('application/secevent+jwt')],
  'the type of a proof of possession': ['token_type_refused', typed('dpop+jwt')],
  'the type of a client assertion': ['token_type_refused', typed('client-authentication+jwt')],
  'the type of an introspection answer': ['token_type_refused', typed('token-introspection+jwt')],
  'the events of a logout token, without its type': ['token_type_refused', written(`{${claims},"events":{}}`)],
  'a token in a token': ['token_type_refused', headed('{"alg":"ES256","cty":"JWT"}')],
  'a token as its payload': ['credential_malformed', written('eyJhbGciOiJub25lIn0.e30.')],
  'encryption around it': ['credential_malformed', `${encode('{"alg":"RSA-OAEP","enc":"A256GCM"}')}.a.b.c.d`],
  'JSON deeper than anybody needs': [
    'credential_malformed',
    written(`{${claims},"x":${'['.repeat(5000)}${']'.repeat(5000)}}`),
  ],
  'more than the size limit': ['credential_too_large', written(`{${claims},"x":"${'x'.repeat(20_000)}"}`)],
  'a claim named twice': ['credential_malformed', written(`{"sub":"admin",${claims}}`)],
  'a claim named twice, once with an escape': ['credential_malformed', written(`{${claims},"\\u0073ub":"admin"}`)],
  'half of a surrogate pair': ['credential_malformed', written(`{${claims},"x":"\\ud800"}`)],
  'a byte order mark before its claims': ['credential_malformed', written(`\ufeff{${claims}}`)],
  'an issuer that is a list': ['token_claims_invalid', written(`{"iss":["https://issuer.example"],"exp":${exp}}`)],
  'exp as text': ['token_claims_invalid', written(`{"iss":"i","exp":"${exp}"}`)],
  'exp without end': ['token_claims_invalid', written('{"iss":"i","exp":1e400}')],
  'exp of null': ['token_claims_invalid', written('{"iss":"i","exp":null}')],
  'exp before 1970': ['token_expired', written('{"iss":"i","exp":-1}')],
  'nbf as text': ['token_claims_invalid', written(`{${claims},"nbf":"0"}`)],
};

suite('attacks that the gateway sees', () => {
  for (const [what, [code, value]] of Object.entries(attacks)) {
    test(`a token with ${what} is refused as ${code}`, () => {
      assert.deepEqual(checkStructure('jwt', value, wallMs), { refused: code });
    });
  }

  test('what is left to the auth server passes: keys in headers, which nobody follows, and an exp with a fraction', () => {
    const known = { kind: 'jwt', issuer: 'https://issuer.example' };
    for (const more of [
      { jku: 'https://attacker.example' },
      { jwk: {} },
      { x5u: 'https://attacker.example' },
      { x5c: [] },
    ]) {
      assert.deepEqual(checkStructure('jwt', headed(JSON.stringify({ alg: 'ES256', ...more })), wallMs), known);
    }
    assert.deepEqual(checkStructure('jwt', written(`{${claims.replace(`${exp}`, `${exp}.5`)}}`), wallMs), known);
  });
});
