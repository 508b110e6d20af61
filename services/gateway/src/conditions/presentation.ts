/**
 * What a request shows beside its credential, held against the conditions of a decision: where it came from, the certificate
 * of its connection, and the proof that it holds the key of a bound token.
 * @module
 */
import { hash, randomBytes } from 'node:crypto';
import { type Clock, type ErrorCode, isAddressWithin, RecentKeys, type SingleUse } from '@token-gateway/platform';
import type { Instant } from '@token-gateway/revocation';
import type { FoundCredential } from '../decision/credential.ts';
import type { Decision, DecisionRequest } from '../decision/decision.ts';
import { type CertificateSource, certificateHash } from './client-certificate.ts';
import type { Conditions } from './conditions.ts';
import { type NonceReach, Nonces } from './dpop-nonce.ts';
import { type Proof, type ProofFault, ProofVerifier, proofAgeMaxMs, proofAheadMaxMs } from './dpop-proof.ts';

export interface ConditionsConfig {
  /** What callers write before `://`; absent = as the transport tells. */
  readonly externalScheme?: 'http' | 'https';
  readonly clientCertificate: CertificateSource;
  /** Whether every DPoP proof needs a nonce made here. */
  readonly requireNonce: boolean;
}

export const defaultConditionsConfig: ConditionsConfig = { clientCertificate: 'none', requireNonce: false };

export interface ConditionsDeps {
  readonly clock: Clock;
  /** Proofs used anywhere in the fleet; null = nobody knows. */
  readonly usedProofs: SingleUse | null;
}

/** As long as a proof can be accepted, and as much as the clocks of two gateways may differ. */
export const proofLifeMs = proofAgeMaxMs + proofAheadMaxMs + 10_000;
const proofsMax = 1_000_000;

export type Unmet = Exclude<Decision, { readonly outcome: 'allow' }>;

const faultCodes: Readonly<Record<ProofFault, ErrorCode>> = {
  invalid: 'proof_invalid',
  mismatch: 'proof_mismatch',
  stale: 'proof_stale',
};

/** What the presentations of one gateway have in common. */
export class ConditionsChecker {
  readonly config: ConditionsConfig;
  readonly verifier = new ProofVerifier();
  readonly nonces: Nonces;
  readonly #deps: ConditionsDeps;
  readonly #recent: RecentKeys;
  /** Whom a nonce has to be for, as far as is known: the fleet, while what it has seen is known here. */
  #reach: NonceReach;

  constructor(deps: ConditionsDeps, config: ConditionsConfig, fleetSecret: Uint8Array) {
    this.config = config;
    this.nonces = new Nonces(fleetSecret, randomBytes(8));
    this.#deps = deps;
    this.#recent = new RecentKeys({ lifeMs: proofLifeMs, keysMax: proofsMax }, deps.clock.now().monotonicMs);
    this.#reach = deps.usedProofs === null ? 'gateway' : 'fleet';
  }

  present(request: DecisionRequest, found: FoundCredential): Presentation {
    return new Presentation(this, request, found);
  }

  nonceRequired(): Unmet {
    const dpopNonce = this.nonces.create(this.#reach, this.#deps.clock.now().wallMs);
    return { outcome: 'deny', code: 'proof_nonce_required', dpopNonce };
  }

  /**
   * Null when the proof is used for the first time. What other gateways have seen may be unknown; then only a nonce for this
   * one is good, since no other accepts a proof with it, and this one remembers.
   */
  async claim({ jkt, jti }: Proof, reach: NonceReach | null): Promise<Unmet | null> {
    const { clock, usedProofs } = this.#deps;
    const key = hash('sha256', `${jkt}\0${jti}`, 'base64url');
    const here = this.#recent.claim(key, clock.now().monotonicMs);
    if (here === 'again') return { outcome: 'deny', code: 'proof_replayed' };
    if (here === 'full') return { outcome: 'unavailable', code: 'overloaded', retryAfterSeconds: 1 };
    const anywhere = usedProofs === null ? 'unsure' : await usedProofs.claim(key).catch(() => 'unsure' as const);
    if (anywhere === 'again') return { outcome: 'deny', code: 'proof_replayed' };
    this.#reach = anywhere === 'unsure' ? 'gateway' : 'fleet';
    return anywhere === 'unsure' && reach !== 'gateway' ? this.nonceRequired() : null;
  }
}

/** Of a request that is decided again while it is open: what came with it is looked at, and its proof used up, once. */
export class PresentedOnce {
  #presentation: Presentation | null = null;

  orElse(present: () => Presentation): Presentation {
    this.#presentation ??= present();
    return this.#presentation;
  }
}

/** Of one request. */
export class Presentation {
  readonly #checker: ConditionsChecker;
  readonly #request: DecisionRequest;
  readonly #found: FoundCredential;
  #proof: Proof | null = null;
  /** Of the proof's nonce. */
  #reach: NonceReach | null = null;
  /** What became of the claim of the proof; undefined = it was not made. */
  #claimed: Unmet | null | undefined;

  constructor(checker: ConditionsChecker, request: DecisionRequest, found: FoundCredential) {
    this.#checker = checker;
    this.#request = request;
    this.#found = found;
  }

  /** Whether `unmet` alone says all: there is no proof that has yet to be claimed. */
  get isSettled(): boolean {
    return this.#found.scheme !== 'dpop' || this.#claimed !== undefined;
  }

  /** Null when the conditions are met, as far as that is known before `claim`. */
  unmet(conditions: Conditions | null, now: Instant): Unmet | null {
    // RFC 9449 section 7.1: nor is a token that is bound to no key accepted as one that is.
    if (this.#found.scheme === 'dpop' && conditions?.jkt === undefined) return deny('proof_unexpected');
    if (conditions === null) return null;
    const { cidrs, x5t_s256: certificate, jkt } = conditions;
    if (cidrs !== undefined && !isAddressWithin(this.#request.sourceAddress ?? '', cidrs))
      return deny('address_not_allowed');
    if (certificate !== undefined) {
      const shown = certificateHash(this.#checker.config.clientCertificate, this.#request);
      if (shown !== certificate) return deny('certificate_required');
    }
    return jkt === undefined ? null : this.#unproven(jkt, now);
  }

  /** Once `unmet` is null and it is not settled: null when nobody has used the proof before. */
  async claim(): Promise<Unmet | null> {
    this.#claimed = this.#proof === null ? deny('proof_required') : await this.#checker.claim(this.#proof, this.#reach);
    return this.#claimed;
  }

  #unproven(jkt: string, now: Instant): Unmet | null {
    if (this.#found.scheme !== 'dpop') return deny('proof_required');
    if (this.#proof === null) {
      const proof = this.#readProof(jkt, now);
      if ('outcome' in proof) return proof;
      this.#proof = proof;
    }
    return this.#proof.jkt === jkt ? (this.#claimed ?? null) : deny('proof_mismatch');
  }

  #readProof(jkt: string, now: Instant): Proof | Unmet {
    const { config, verifier, nonces } = this.#checker;
    const { method, scheme = '', host = '', path } = this.#request;
    const values = this.#request.header('dpop');
    const [value] = values;
    if (value === undefined) return deny('proof_required');
    // RFC 9449 section 4.3 point 1; proxies join repeated headers with commas.
    if (values.length > 1 || value.includes(',')) return deny('proof_invalid');
    const target = { method, scheme: config.externalScheme ?? scheme, host, path, token: this.#found.value };
    const proof = verifier.verify(value.trim(), target, now.wallMs, jkt);
    if (typeof proof === 'string') return deny(faultCodes[proof]);
    if (proof.nonce !== null) {
      this.#reach = nonces.reachOf(proof.nonce, now.wallMs);
      if (this.#reach === null) return this.#checker.nonceRequired();
    } else if (config.requireNonce) return this.#checker.nonceRequired();
    return proof;
  }
}

function deny(code: ErrorCode): Unmet {
  return { outcome: 'deny', code };
}
