/** What every `IdentityClient` does: over the wire the same as called directly. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { chainAfter, changeFromRow, genesisChain } from '@token-gateway/revocation';
import type { Change as ChangeMessage, ResolveResponse } from '@token-gateway/schemas/identity';
import { toServiceError } from '../errors.ts';
import type { IdentityClient } from './port.ts';
import type { TestIdentity } from './test.ts';

export interface OpenedIdentityClient {
  readonly identity: TestIdentity;
  /** A client of it. */
  readonly client: IdentityClient;
}

const timeoutMs = 5000;
const atStart = { epoch: 0, applied: 0, heard: 0, heardChain: Buffer.alloc(0), historyMs: 300_000 };

const granted: ResolveResponse = {
  epoch: 3,
  seq: Number.MAX_SAFE_INTEGER,
  minSigningGeneration: 7,
  outcome: {
    $case: 'granted',
    value: {
      tenantId: 'ten_1',
      userId: 'usr_1',
      entitlements: ['orders:read', 'größe:日本'],
      scopes: [],
      audiences: ['internal'],
      allowedCidrs: ['192.0.2.0/24'],
      keyId: '',
      providerId: 'prv_1',
      tokenTtlSeconds: 300,
      maxStalenessMs: 0,
      attributesJson: '',
      firstUse: 'linked',
      credentialExpiresAtMs: Date.UTC(2100, 0, 1),
      subjects: ['tenant:ten_1', 'external:prv_1:auth0|1'],
      quotas: [{ subject: 'user:usr_1', requests: 100, windowSeconds: 60 }],
    },
  },
};

export function identityClientConformance(
  name: string,
  open: (test: TestContext) => Promise<OpenedIdentityClient>,
): void {
  describe(`identity client: ${name}`, () => {
    it('brings every field of a question and of its answer', async (test) => {
      const { identity, client } = await open(test);
      const external = {
        providerId: 'prv_1',
        providerRevision: 12,
        providerEpoch: 1_790_000_000_001,
        subject: 'auth0|1',
        sessionId: '',
        signingInputSha256: Buffer.alloc(32, 0xfe),
        issuedAtSeconds: 1_800_000_000,
        email: 'a@example.test',
        displayName: 'Ä',
        emailVerified: true,
      };
      identity.resolved = granted;
      const question = { credential: { $case: 'external', value: external } } as const;
      assert.deepEqual(await client.resolve(question, { timeoutMs }), granted);

      const previewed = { credential: { $case: 'preview', value: external } } as const;
      assert.deepEqual(await client.resolve(previewed, { timeoutMs }), granted);

      const key = { keyId: 'k', secretSha256: Buffer.alloc(32, 0x80) };
      identity.resolved = {
        epoch: 1,
        seq: 0,
        minSigningGeneration: 0,
        outcome: { $case: 'refused', value: { code: 'key_unknown', subjects: [] } },
      };
      const keyQuestion = { credential: { $case: 'apiKey', value: key } } as const;
      assert.deepEqual(await client.resolve(keyQuestion, { timeoutMs }), identity.resolved);

      const provider = {
        id: 'prv_1',
        tenantId: 'ten_1',
        issuer: 'https://issuer.example',
        audiences: ['api'],
        jwksUri: '',
        algorithms: ['ES256'],
        claimMappingJson: '{"email":"mail"}',
        revision: 4,
        rulesJson: '{"tokenType":"at+jwt"}',
      };
      identity.providers = { epoch: 3, seq: 9, providers: [provider, { ...provider, id: 'prv_2' }] };
      assert.deepEqual(await client.listProviders({ timeoutMs }), identity.providers);
      const revocation = {
        actor: 'client:gateway',
        reason: 'ä',
        target: {
          $case: 'credential',
          value: { signingInputSha256: Buffer.alloc(32, 0xfd), providerId: 'prv_1', tenantId: '' },
        },
      } as const;
      assert.deepEqual(await client.revoke(revocation, { timeoutMs }), { found: true, keyId: 'k' });
      const signal = {
        providerId: 'prv_1',
        idSha256: Buffer.alloc(32, 0xfe),
        event: 'backchannel-logout',
        issuedAtMs: 1_800_000_000_000,
        atMs: 1_800_000_000_001,
        effect: { $case: 'endIssued', value: { subject: 'ä', email: '' } },
      } as const;
      assert.deepEqual(await client.receiveSignal(signal, { timeoutMs }), identity.received);
      const internal = {
        userId: 'usr_1',
        tenantId: 'ten_1',
        keyId: '',
        providerId: 'prv_1',
        subject: 's',
        sessionId: 'sid',
        signingInputSha256: Buffer.alloc(32, 1),
        issuedAtSeconds: 1_800_000_000,
        tokenSha256: Buffer.alloc(32, 2),
      };
      const internalQuestion = { credential: { $case: 'internal', value: internal } } as const;
      await client.resolve(internalQuestion, { timeoutMs });
      const range = { seqFrom: 1, seqTo: Number.MAX_SAFE_INTEGER, ageMs: 12 };
      const watermark = { ...atStart, receipts: { gatewayId: 'gw-1', epoch: 3, ranges: [range, range] } };
      await client.watermark(watermark, { timeoutMs });
      const asked = [question, previewed, keyQuestion, {}, revocation, signal, internalQuestion, watermark];
      assert.deepEqual(identity.requests, asked);
    });

    it('brings a chain of changes that can be verified', async (test) => {
      const { identity, client } = await open(test);
      identity.commit(['user:ü']);
      const heard = identity.commit([], 'tg.signing-key.compromised');
      const newest = identity.commit(['key:1', 'user:2'], 'tg.key.revoked');
      const { seq, reset, changes, chain } = await client.watermark(atStart, { timeoutMs });
      assert.deepEqual({ seq, reset }, { seq: 3, reset: true });
      const rows = changes.map((row) => changeFromRow({ ...row, chain: row.chain.toString('hex') }));
      assert.deepEqual(rows, identity.log.changes);
      assert.equal(rows.reduce(chainAfter, genesisChain), chain.toString('hex'));

      const heardChain = Buffer.from(heard.chain, 'hex');
      const later = await client.watermark({ ...atStart, epoch: 1, heard: 2, heardChain }, { timeoutMs });
      assert.deepEqual(
        { base: later.base, baseChain: later.baseChain, seqs: later.changes.map(({ seq: each }) => each) },
        { base: 2, baseChain: heardChain, seqs: [newest.seq] },
      );
    });

    it('rejects with identity_unavailable when there is no answer in time', { timeout: 10_000 }, async (test) => {
      const { identity, client } = await open(test);
      identity.hold();
      const isUnavailable = (error: unknown): boolean => toServiceError(error).code === 'identity_unavailable';
      const startedAt = performance.now();
      await Promise.all([
        assert.rejects(client.watermark(atStart, { timeoutMs: 200 }), isUnavailable),
        assert.rejects(client.resolve({}, { timeoutMs: 200 }), isUnavailable),
        assert.rejects(client.listProviders({ timeoutMs: 200 }), isUnavailable),
      ]);
      assert.ok(performance.now() - startedAt < 2000);
      identity.release();
      assert.equal((await client.watermark(atStart, { timeoutMs })).seq, 0);
    });

    it('rejects with identity_unavailable when identity cannot answer', async (test) => {
      const { identity, client } = await open(test);
      const { ServiceError } = await import('../errors.ts');
      identity.failure = new ServiceError('identity_unavailable');
      const isUnavailable = (error: unknown): boolean => toServiceError(error).code === 'identity_unavailable';
      await assert.rejects(client.watermark(atStart, { timeoutMs }), isUnavailable);
      await assert.rejects(
        client.watch(fromNewest, () => undefined, new AbortController().signal),
        isUnavailable,
      );
    });

    it('watches what commits after the watch opened, in order, and nothing before', async (test) => {
      const { identity, client } = await open(test);
      identity.commit(['user:before']);
      const watch = watching(client, fromNewest);
      await watch.opened;
      for (let index = 0; index < 100; index += 1) identity.commit([`user:${index}`]);
      await watch.until(100);
      assert.deepEqual(
        watch.seqs,
        Array.from({ length: 100 }, (_, index) => index + 2),
      );
      await watch.abort();
    });

    it('watches from a place on, without a gap between what was and what comes', async (test) => {
      const { identity, client } = await open(test);
      for (let index = 0; index < 5; index += 1) identity.commit([`user:${index}`]);
      const watch = watching(client, { after: 2, fromNewest: false });
      await watch.opened;
      identity.commit(['user:last']);
      await watch.until(4);
      assert.deepEqual(watch.seqs, [3, 4, 5, 6]);
      await watch.abort();
    });

    it('ends a watch at its abort, and keeps nothing of it at identity', async (test) => {
      const { identity, client } = await open(test);
      const watch = watching(client, fromNewest);
      await watch.opened;
      await watch.abort();
      while (identity.watchCount > 0) await new Promise(setImmediate);
      await client.watch(fromNewest, () => undefined, AbortSignal.abort());
    });

    it('rejects a watch that breaks', async (test) => {
      const { identity, client } = await open(test);
      const watch = watching(client, fromNewest);
      await watch.opened;
      identity.breakWatches();
      await assert.rejects(watch.ended, (error) => toServiceError(error).code === 'identity_unavailable');
    });
  });
}

const fromNewest = { after: 0, fromNewest: true };

/** A watch under way, and what it has brought. */
export function watching(client: IdentityClient, request: { after: number; fromNewest: boolean }) {
  const seqs: number[] = [];
  const opened = Promise.withResolvers<void>();
  const abort = new AbortController();
  let wake: () => void = () => undefined;
  const onChange = ({ seq }: ChangeMessage): void => {
    seqs.push(seq);
    wake();
  };
  const ended = client.watch(request, onChange, abort.signal, opened.resolve);
  ended.catch(opened.reject);
  return {
    seqs,
    opened: opened.promise,
    ended,
    async until(count: number): Promise<void> {
      while (seqs.length < count) await new Promise<void>((resolve) => (wake = resolve));
    },
    async abort(): Promise<void> {
      abort.abort();
      await ended;
    },
  };
}
