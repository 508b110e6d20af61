import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type EnvoyAddress, openParts, type Parts } from '../parts/index.ts';
import type { Trust, Verifier } from './port.ts';

const example = readFileSync(join(import.meta.dirname, 'envoy/envoy.yaml'), 'utf8');

function configure({ issuer, audience }: Trust, { hostname, listenerPort, adminPort }: EnvoyAddress): string {
  const { port } = new URL(issuer);
  const replacements: Readonly<Record<string, string>> = {
    'issuer: https://auth.example': `issuer: ${issuer}`,
    'uri: https://auth.example/': `uri: http://${hostname}:${port}/`,
    'address: auth.example, port_value: 443': `address: ${hostname}, port_value: ${port}`,
    'audiences: [internal]': `audiences: ['${audience}']`,
    'port_value: 10000': `port_value: ${listenerPort}`,
    'port_value: 9901': `port_value: ${adminPort}`,
  };
  return Object.entries(replacements).reduce((text, [from, to]) => {
    assert.equal(text.split(from).length, 2, from);
    return text.replace(from, to);
  }, example);
}

/** Envoy's own filters; it does not ask for a key it does not know, and so fetches the keys every few seconds. */
export function envoyVerifier(parts: Parts): Verifier {
  return {
    name: 'Envoy: jwt_authn',
    keysKnownWithinMs: 7000,
    prepare: async () => void (await openParts(['envoy'])),
    start: (trust) => parts.envoy((address) => configure(trust, address)),
  };
}
