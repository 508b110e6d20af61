import { hash } from 'node:crypto';
import { type HttpApp, parseApiKey, ServiceError } from '@token-gateway/platform';
import type { Static } from 'typebox';
import { isSecretOf } from '../resolve.ts';
import type { ApiKeyState } from '../store/port.ts';
import type { RevokeKey } from './api-key-revocation.ts';
import { isPlatform, leaksScope } from './caller.ts';
import type { RestContext } from './context.ts';
import { Accepted, LeakReport } from './schemas.ts';

/** No report is answered sooner, so that the time a revocation takes is not seen from outside. */
const answerAfterMs = 250;
/** Of one caller, at one replica. */
const reportsPerSecond = 20;
const reportsAtOnce = 100;

export function leakRoutes(app: HttpApp, context: RestContext, revokeKey: RevokeKey): void {
  const { callers, clock, store, closing } = context;
  const buckets = new Map<string, { tokens: number; atMs: number }>();

  function requireRate(actor: string): void {
    const atMs = clock.now().monotonicMs;
    const known = buckets.get(actor) ?? { tokens: reportsAtOnce, atMs };
    const tokens = Math.min(reportsAtOnce, known.tokens + ((atMs - known.atMs) / 1000) * reportsPerSecond);
    if (tokens < 1) throw new ServiceError('rate_limited', { detail: actor });
    buckets.set(actor, { tokens: tokens - 1, atMs });
  }

  async function findKey(report: Static<typeof LeakReport>): Promise<ApiKeyState | null> {
    if ('keyId' in report) return ownKey(report.keyId, report.sha256);
    if ('sha256' in report) return importedKey(Buffer.from(report.sha256, 'hex'));
    const parsed = parseApiKey(report.key);
    return parsed === null
      ? importedKey(hash('sha256', report.key, 'buffer'))
      : ownKey(parsed.keyId, parsed.secretSha256.toString('hex'));
  }

  async function ownKey(keyId: string, sha256: string): Promise<ApiKeyState | null> {
    const { state } = await store.apiKey(keyId);
    return isSecretOf(state, Buffer.from(sha256, 'hex')) ? state : null;
  }

  async function importedKey(sha256: Buffer): Promise<ApiKeyState | null> {
    return (await store.importedKey(sha256)).state;
  }

  app.post('/v1/leaks', { schema: { body: LeakReport, response: { 202: Accepted } } }, async (request, reply) => {
    const caller = await callers.read(request);
    if (!isPlatform(caller) && !caller.scopes.has(leaksScope)) {
      throw new ServiceError('forbidden', { detail: `${caller.actor} lacks ${leaksScope}` });
    }
    requireRate(caller.actor);
    const answerable = clock.sleep(answerAfterMs, closing);
    const key = await findKey(request.body);
    if (key !== null) await revokeKey({ id: key.id, caller, reason: { reason: 'leaked' }, isReported: true });
    await answerable;
    return reply.code(202).send({ status: 'accepted' });
  });
}
