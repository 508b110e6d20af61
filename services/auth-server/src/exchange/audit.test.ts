import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type AuditTrail, createAuditTrail } from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { auditExchange } from './audit.ts';
import type { ExchangeRequest } from './exchange.ts';

const request: ExchangeRequest = { credential: { kind: 'jwt', value: 'x' }, audience: 'internal', clientId: 'gateway' };

/** To a log that takes nothing. */
function brokenTrail(onOutage: 'drop' | 'refuse'): AuditTrail {
  const eventLog = { appendKeyed: () => Promise.reject(new Error('away')) };
  const deps = { eventLog, clock: createTestClock(), random: (bytes: number) => new Uint8Array(bytes) };
  return createAuditTrail({ ...deps, ...createSilentTelemetry() }, { onOutage, countMax: 8 });
}

async function codesOf(trail: AuditTrail): Promise<(string | undefined)[]> {
  let exchanges = 0;
  const exchange = auditExchange(async () => {
    exchanges += 1;
    return { outcome: 'refused', code: 'token_expired' };
  }, trail);
  const codes: (string | undefined)[] = [];
  for (let count = 0; count < 10; count += 1) {
    codes.push(
      await exchange(request).then(
        () => undefined,
        (error: { code: string }) => error.code,
      ),
    );
  }
  assert.equal(exchanges, codes.filter((code) => code === undefined).length, 'what is refused is not exchanged');
  return codes;
}

describe('the audit of exchanges', () => {
  it('refuses exchanges that could not be audited, where that is asked for', async () => {
    const codes = await codesOf(brokenTrail('refuse'));
    assert.deepEqual(codes, [...Array(7).fill(undefined), ...Array(3).fill('audit_unavailable')]);
  });

  it('holds up nothing where loss is allowed', async () => {
    assert.deepEqual(await codesOf(brokenTrail('drop')), Array(10).fill(undefined));
  });
});
