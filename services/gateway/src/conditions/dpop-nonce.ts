/**
 * Nonces for DPoP proofs (RFC 9449 section 9), kept nowhere: each carries the time it was made and whom it is for, under an
 * HMAC of the fleet's secret. One for the whole fleet is good at every gateway; one for a single gateway at no other, which
 * is what that gateway asks for while it cannot tell what the others have seen.
 *
 *     seconds(4) gateway(8; zeros = the fleet) mac(16)
 */
import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';

export type NonceReach = 'fleet' | 'gateway';

const bodyBytes = 12;
const macBytes = 16;
const lifeSeconds = 60;
/** Between the clocks of two gateways. */
const toleranceSeconds = 5;
const fleet = Buffer.alloc(8);

export class Nonces {
  readonly #key: Uint8Array;
  readonly #gateway: Buffer;

  /** `gateway` is 8 random bytes, others at each start. */
  constructor(fleetSecret: Uint8Array, gateway: Uint8Array) {
    this.#key = new Uint8Array(hkdfSync('sha256', fleetSecret, Buffer.alloc(0), 'token-gateway dpop nonce v1', 32));
    this.#gateway = Buffer.from(gateway);
  }

  create(reach: NonceReach, nowWallMs: number): string {
    const body = Buffer.alloc(bodyBytes);
    body.writeUInt32BE(Math.floor(nowWallMs / 1000));
    (reach === 'fleet' ? fleet : this.#gateway).copy(body, 4);
    return Buffer.concat([body, this.#macOf(body)]).toString('base64url');
  }

  /** Whom a nonce is for; null for one that is not of this fleet, for another gateway, or over. */
  reachOf(nonce: string, nowWallMs: number): NonceReach | null {
    const bytes = Buffer.from(nonce, 'base64url');
    if (bytes.length !== bodyBytes + macBytes) return null;
    const body = bytes.subarray(0, bodyBytes);
    if (!timingSafeEqual(bytes.subarray(bodyBytes), this.#macOf(body))) return null;
    const ageSeconds = nowWallMs / 1000 - body.readUInt32BE(0);
    if (ageSeconds > lifeSeconds || ageSeconds < -toleranceSeconds) return null;
    const gateway = body.subarray(4);
    if (gateway.equals(fleet)) return 'fleet';
    return gateway.equals(this.#gateway) ? 'gateway' : null;
  }

  #macOf(body: Uint8Array): Buffer {
    return createHmac('sha256', this.#key).update(body).digest().subarray(0, macBytes);
  }
}
