import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, it, suite } from 'node:test';
import { type Judge, type ManifestKind, openJudge } from './manifests.ts';

const deploy = (file: string): string => join(import.meta.dirname, '../../deploy', file);

interface Manifest {
  readonly file: string;
  readonly kind: ManifestKind;
  /** What makes it fail closed, and answer in time. */
  readonly has: readonly string[];
  /** What its schema would not take. */
  readonly mistakes: Readonly<Record<string, string>>;
}

const manifests: readonly Manifest[] = [
  {
    file: 'istio/mesh-config.yaml',
    kind: 'istio-mesh-config',
    has: ['failOpen: false', 'statusOnError: "503"', 'timeout: 1s'],
    mistakes: { 'failOpen: false': 'fail_open_: false', 'timeout: 1s': 'timeout: soon', 'port: 9001': 'port: grpc' },
  },
  {
    file: 'istio/authorization-policy.yaml',
    kind: 'custom-resources',
    has: ['action: CUSTOM', 'name: token-gateway'],
    mistakes: {
      'action: CUSTOM': 'action: CUSTOMS',
      'selector:': 'selectors:',
      'security.istio.io/v1': 'security.istio.io/v9',
    },
  },
  {
    file: 'envoy-gateway/token-gateway.yaml',
    kind: 'custom-resources',
    has: ['failOpen: false', 'statusOnError: 503', 'timeout: 1s'],
    mistakes: {
      'failOpen: false': 'failOpened: false',
      'timeout: 1s': 'timeout: soon',
      'escapedSlashesAction: RejectRequest': 'escapedSlashesAction: Reject',
      'port: 9001': 'port: grpc',
    },
  },
  {
    file: 'consul/service-defaults.json',
    kind: 'consul-config-entry',
    // What an extension that is required cannot be applied to, Consul gives nothing.
    has: ['"Required": true', '"StatusOnError": 503', '"Timeout": "1s"'],
    mistakes: { '"Required"': '"Require"', '"EnvoyExtensions"': '"Extensions"' },
  },
];

suite('the manifests', () => {
  let folder: string;
  let judge: Judge | Error;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'token-gateway-manifests-'));
    judge = await openJudge().catch((cause: unknown) => new Error('no Go, or no modules of it', { cause }));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  for (const { file, kind, has, mistakes } of manifests) {
    it(`${file} is by its schema, lets nothing pass without an answer, and waits for none for long`, async (context) => {
      const text = await readFile(deploy(file), 'utf8');
      for (const setting of has) assert.ok(text.includes(setting), setting);
      if (judge instanceof Error && process.env['CI']) throw judge;
      if (judge instanceof Error) {
        context.skip(judge.message);
        return;
      }
      assert.equal(await judge.fault(kind, deploy(file)), null);
      for (const [right, wrong] of Object.entries(mistakes)) {
        const copy = join(folder, basename(file));
        await writeFile(copy, text.replace(right, wrong));
        assert.notEqual(await judge.fault(kind, copy), null, wrong);
      }
    });
  }
});
