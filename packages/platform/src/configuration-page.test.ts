import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';

const read = (path: string): string => readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8');

const sources: Readonly<Record<string, string>> = {
  'Every process': 'packages/platform/src/config.ts',
  identity: 'services/identity/src/config.ts',
  'Mutual TLS': 'packages/platform/src/mutual-tls/open.ts',
  'Key vault': 'packages/platform/src/key-vault/open.ts',
  'auth-server': 'services/auth-server/src/config.ts',
  'revocation-relay': 'services/revocation-relay/src/config.ts',
  gateway: 'services/gateway/src/config.ts',
  embedded: 'embedded/src/embedded.ts',
};

/** The variables that the source's fields read. */
function namesRead(path: string): string[] {
  const builder = /\b(?:choice|flag|integer|keyPrefixes|list|port|secret|text|urls?)\(\s*'(TG_\w+)'/g;
  return [...read(path).matchAll(builder)].map(([, name]) => name ?? '');
}

describe('docs/configuration.md', () => {
  const sections = read('docs/configuration.md').split(/^## /m).slice(1);
  const common = namesRead(sources['Every process'] ?? '');

  it('has a section for each process', () => {
    assert.deepEqual(
      sections.map((section) => section.split('\n')[0]),
      Object.keys(sources),
    );
  });

  for (const section of sections) {
    const [title = ''] = section.split('\n');
    it(`names the variables that the source reads, each once: ${title}`, () => {
      const written = [...section.matchAll(/^\| `(TG_\w+)` \|/gm)].map(([, name]) => name);
      const isOwn = (name: string): boolean => title === 'Every process' || !common.includes(name);
      assert.deepEqual(
        written.sort(),
        namesRead(sources[title] ?? '')
          .filter(isOwn)
          .sort(),
      );
    });
  }
});
