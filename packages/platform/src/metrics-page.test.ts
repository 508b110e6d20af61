import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const read = (path: string): string => readFileSync(`${root}${path}`, 'utf8');

/** Metrics are named where they are made, and nothing else in the sources is named like one. */
const made = new Map(
  globSync('{services/*,packages/platform}/src/**/*.ts', {
    cwd: root,
    exclude: (path) => /\.test\.ts$|testing\.ts$/.test(path),
  }).flatMap((path) =>
    [...read(path).matchAll(/'(tg_[a-z0-9_]+)',?\s*(?:help: )?\s*'([^']*)'/g)].map(
      ([, name = '', help = '']) => [name, help] as const,
    ),
  ),
);
const ofNode = /^(?:process|nodejs)_/;

describe('docs/metrics.md', () => {
  const rows = [...read('docs/metrics.md').matchAll(/^\| `(\w+)(?:\{[^}]*\})?` \| (\w+) \| (.+) \|$/gm)];

  it('has every metric that a service makes, once, and no other', () => {
    assert.ok(made.size > 20);
    assert.deepEqual(rows.map(([, name]) => name).sort(), [...made.keys()].sort());
  });

  it('says what the metric says of itself', () => {
    for (const [, name = '', , meaning] of rows) assert.equal(meaning, made.get(name), name);
  });
});

describe('alerts and dashboard', () => {
  for (const path of ['deploy/prometheus/alerts.yaml', 'deploy/grafana/token-gateway.json']) {
    it(`ask only for metrics that there are: ${path}`, () => {
      const text = read(path);
      const asked = [...text.matchAll(/\b((?:tg|process|nodejs)_[a-z0-9_]+)\b/g)].map(([, name = '']) => name);
      assert.ok(asked.length > 10);
      const missing = asked.filter(
        (name) => !ofNode.test(name) && !made.has(name.replace(/_(?:bucket|sum|count)$/, '')),
      );
      assert.deepEqual(missing, []);
    });
  }
});
