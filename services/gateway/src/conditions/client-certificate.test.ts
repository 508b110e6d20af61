import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { suite, test } from 'node:test';
import { certificateHash } from './client-certificate.ts';

/** What is hashed is the DER, whatever it says. */
const der = Buffer.from('30820122300d06092a864886f70d01010105000382010f', 'hex');
const pem = `-----BEGIN CERTIFICATE-----\n${der.toString('base64')}\n-----END CERTIFICATE-----\n`;
const encoded = encodeURIComponent(pem);
const expected = hash('sha256', der, 'base64url');
const hex = hash('sha256', der, 'hex');

const headers = (...values: string[]) => ({
  header: (name: string) => (name === 'x-forwarded-client-cert' ? values : []),
});
const ofHeader = (...values: string[]) => certificateHash('xfcc', headers(...values));
const ofPeer = (peerCertificate: string) => certificateHash('peer', { ...headers(), peerCertificate });

suite('the client certificate', () => {
  test('is hashed as Envoy gives it', () => {
    assert.equal(ofPeer(encoded), expected);
    assert.equal(ofPeer(encoded.replaceAll('%0A', '%0D%0A')), expected);
  });

  test('is none without one, and when it is not understood', () => {
    for (const bad of ['', 'x', '%', '%zz', encodeURIComponent(pem + pem), encoded.slice(0, -30), 'A'.repeat(40_000)]) {
      assert.equal(ofPeer(bad), null);
    }
  });

  test('is taken from the header by its hash or itself, wherever they stand', () => {
    assert.equal(ofHeader(`Hash=${hex}`), expected);
    assert.equal(ofHeader(`By=spiffe://a/b;Hash=${hex};Subject="CN=a,O=\\"b;c\\"";URI=;DNS=a;DNS=b`), expected);
    assert.equal(ofHeader(`Cert="${encoded}";Hash=${hex.toUpperCase()}`), expected);
    assert.equal(ofHeader(`Subject="Hash=${'0'.repeat(64)}";Cert="${encoded}"`), expected);
  });

  const forged: Record<string, readonly string[]> = {
    'no header': [],
    'an empty one': [''],
    'two headers': [`Hash=${hex}`, `Hash=${hex}`],
    'two elements, one of which a client may have sent': [`Hash=${hex},Hash=${'0'.repeat(64)}`],
    'two hashes': [`Hash=${hex};Hash=${hex}`],
    'a hash that is not of the certificate beside it': [`Hash=${'0'.repeat(64)};Cert="${encoded}"`],
    'a hash of another length': ['Hash=abcd'],
    'no hash': ['Subject="CN=a"'],
    'a quote that does not end': [`Subject="a;Hash=${hex}`],
  };
  for (const [name, values] of Object.entries(forged)) {
    test(`is none by the header: ${name}`, () => assert.equal(ofHeader(...values), null));
  }

  test('is believed from the configured source alone', () => {
    const both = { ...headers(`Hash=${hex}`), peerCertificate: encoded };
    assert.equal(certificateHash('none', both), null);
    assert.equal(certificateHash('peer', headers(`Hash=${hex}`)), null);
    assert.equal(certificateHash('xfcc', { ...headers(), peerCertificate: encoded }), null);
  });
});
