import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { grantLike } from './grant.testing.ts';
import { allowedBy, type Grant } from './grant.ts';
import { GrantPacker } from './packed-grant.ts';

const texts = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom('\ud800', 'a\udc00b', '\ud800:\ud800'),
  fc.string({ unit: 'grapheme' }),
  fc.uuid(),
  fc.stringMatching(/^[0-9a-f]*$/),
);
const base64url = fc.uint8Array({ maxLength: 900 }).map((bytes) => Buffer.from(bytes).toString('base64url'));
const tokens = fc.oneof(
  fc.array(base64url, { minLength: 1, maxLength: 5 }).map((parts) => parts.join('.')),
  fc.constantFrom('', '.', '..', 'a.b.c', 'a.Zh.c', '..a', 'token-1'),
  fc.string({ unit: 'binary' }),
);
const subjects = fc.array(
  fc
    .tuple(
      fc.constantFrom('key:', 'user:', 'tenant:', 'external:p:', 'session:p:', 'session:', 'credential:', ''),
      texts,
    )
    .map((parts) => parts.join('')),
);
const counts = fc.maxSafeNat();
const plain = { noNullPrototype: true };
const instants = fc.record({ monotonicMs: fc.double({ noNaN: true }), wallMs: fc.double({ noNaN: true }) }, plain);

describe('a packed grant', () => {
  it('is the same when it is unpacked, whatever is in it', () => {
    const packer = new GrantPacker();
    const grants = fc
      .record(
        {
          subjects,
          asOf: fc.record({ epoch: counts, seq: counts }, plain),
          maxStalenessMs: counts,
          expiresAt: instants,
          renewAtMs: fc.double({ noNaN: true }),
          conditions: fc.constantFrom<Grant['conditions'][]>(
            null,
            { jkt: 'x'.repeat(43) },
            { cidrs: ['10.0.0.0/8', '::1/128'] },
            { quotas: [{ subject: 'key:k', requests: 10, window_seconds: 60 }] },
          ),
          decision: fc.record(
            {
              outcome: fc.constant('allow' as const),
              kind: fc.constantFrom('api-key' as const, 'jwt' as const),
              token: tokens,
            },
            plain,
          ),
        },
        plain,
      )
      .map((grant) => ({
        ...grant,
        decision: allowedBy(grant.decision.kind, grant.decision.token, grant.conditions),
      }));
    fc.assert(
      fc.property(fc.array(grants, { minLength: 1, maxLength: 3 }), (many) => {
        const packed = many.map((grant) => packer.pack(grant));
        assert.deepEqual(
          packed.map((text) => packer.unpack(text)),
          many,
        );
        assert.deepEqual(
          packed.map((text) => packer.subjectsOf(text)),
          many.map((grant) => grant.subjects),
        );
      }),
      { numRuns: 500 },
    );
  });

  it('of a real one has 0.7 of its characters at most', () => {
    const packer = new GrantPacker();
    for (const kind of ['api-key', 'jwt'] as const) {
      const grant = grantLike(kind);
      const written = grant.decision.token.length + grant.subjects.join('').length;
      packer.pack(grant);
      assert.ok(packer.pack(grantLike(kind)).length < 0.7 * written);
    }
  });

  it('shares no more texts than it has room for, and none that is long', () => {
    const packer = new GrantPacker();
    for (let index = 0; index < 20_000; index++) {
      const grant = grantLike('jwt', { subjects: [`external:${index}:1`, `external:${'x'.repeat(300)}${index}:1`] });
      assert.deepEqual(packer.unpack(packer.pack(grant)), grant);
    }
  });
});
