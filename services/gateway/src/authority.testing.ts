/**
 * Identity and auth server as one small model for tests of the gateway alone: a change log, users and keys, and answers
 * that a test can hold back or lose. What the real ones do is tested with them, in tests/.
 */
import { type CallOptions, type ErrorCode, type IdentityClient, ServiceError } from '@token-gateway/platform';
import {
  type Change,
  changePayload,
  credentialSubject,
  keySubject,
  tenantSubject,
  userSubject,
} from '@token-gateway/revocation';
import { ChangeLog } from '@token-gateway/revocation/testing';
import type { WatermarkRequest, WatermarkResponse } from '@token-gateway/schemas/identity';
import type { ExchangeClient, ExchangeRequest, ExchangeResult } from './exchange-client/port.ts';

/** Lets a test decide when a call is answered. */
class Valve {
  #isOpen = true;
  #waiting: (() => void)[] = [];
  isBroken = false;

  /** Calls wait, having been decided, until opened. */
  hold(): void {
    this.#isOpen = false;
  }

  open(): void {
    this.#isOpen = true;
    for (const go of this.#waiting.splice(0)) go();
  }

  async pass(): Promise<void> {
    if (!this.#isOpen) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }
}

export class Authority {
  readonly log = new ChangeLog();
  readonly watermarkValve = new Valve();
  readonly exchangeValve = new Valve();
  readonly providersValve = new Valve();
  readonly disabled = new Set<string>();
  readonly issuers = new Set<string>();
  /** Of every provider. */
  rules: object = {};
  listIsBroken = false;
  /** What a broken exchange fails with. */
  exchangeFailure: ErrorCode = 'auth_server_unavailable';
  maxStalenessMs = 1000;
  tokenLifeMs = 300_000;
  exchangeCount = 0;
  watermarkCount = 0;
  /** Replaces the answer of an exchange before it is held back. */
  alter: (result: ExchangeResult) => ExchangeResult = (result) => result;

  readonly #wallMs: () => number;

  constructor(wallMs: () => number) {
    this.#wallMs = wallMs;
  }

  /** Commits a change that ends (or allows again) everything of a user. */
  disable(userId: string): Change {
    this.disabled.add(userId);
    return this.log.append([userSubject(userId)], 'tg.user.disabled');
  }

  enable(userId: string): Change {
    this.disabled.delete(userId);
    return this.log.append([userSubject(userId)], 'tg.user.enabled');
  }

  readonly identity: IdentityClient = {
    resolve: () => Promise.reject(new ServiceError('identity_unavailable')),
    revoke: () => Promise.reject(new ServiceError('identity_unavailable')),
    receiveSignal: () => Promise.reject(new ServiceError('identity_unavailable')),
    watermark: async (request: WatermarkRequest, _options: CallOptions): Promise<WatermarkResponse> => {
      this.watermarkCount += 1;
      if (this.watermarkValve.isBroken) throw new ServiceError('identity_unavailable');
      const answer = this.log.answer({ ...request, heardChain: request.heardChain.toString('hex') });
      await this.watermarkValve.pass();
      return {
        ...answer,
        chain: Buffer.from(answer.chain, 'hex'),
        baseChain: Buffer.from(answer.baseChain, 'hex'),
        changes: answer.changes.map((change) => ({
          epoch: change.epoch,
          seq: change.seq,
          chain: Buffer.from(change.chain, 'hex'),
          payload: changePayload(change),
        })),
      };
    },
    listProviders: async () => {
      if (this.watermarkValve.isBroken || this.listIsBroken) throw new ServiceError('identity_unavailable');
      const providers = [...this.issuers].map((issuer) => ({
        id: 'p',
        tenantId: 't',
        issuer,
        audiences: ['api'],
        jwksUri: '',
        algorithms: [],
        claimMappingJson: '',
        revision: 1,
        rulesJson: JSON.stringify(this.rules),
      }));
      await this.providersValve.pass();
      return { epoch: this.log.epoch, seq: this.log.seq, providers };
    },
    watch: () => Promise.reject(new ServiceError('identity_unavailable')),
    close: async () => {},
  };

  /** Every API key stands for the user of its own id. */
  readonly exchange: ExchangeClient = {
    exchange: async (request: ExchangeRequest): Promise<ExchangeResult> => {
      this.exchangeCount += 1;
      if (this.exchangeValve.isBroken) throw new ServiceError(this.exchangeFailure);
      const id = request.credential.split('_')[1] ?? '';
      const asOf = { epoch: this.log.epoch, seq: this.log.seq };
      // As the auth server names them: of a client for itself, there is no tenant and no user.
      const subjects =
        request.kind === 'anonymous'
          ? ['client:gateway', credentialSubject(`token-${this.exchangeCount}`)]
          : [keySubject(id), userSubject(id), tenantSubject('t')];
      const result: ExchangeResult = this.disabled.has(id)
        ? { outcome: 'refused', code: 'user_disabled', facts: { asOf, subjects } }
        : {
            outcome: 'granted',
            token: `token-${this.exchangeCount}`,
            tokenExpiresAtMs: this.#wallMs() + this.tokenLifeMs,
            facts: { asOf, subjects, maxStalenessMs: this.maxStalenessMs },
            conditions: null,
          };
      const altered = this.alter(result);
      await this.exchangeValve.pass();
      return altered;
    },
    close: async () => {},
  };
}
