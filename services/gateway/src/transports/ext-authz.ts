/**
 * Envoy's ext_authz v3 over gRPC. Whatever goes wrong ends in a `denied_response`, which is the one answer that Envoy never
 * lets pass: to a gRPC error, and to an `error_response`, it applies `failure_mode_allow`, and where somebody has set that,
 * an outage here would open the door.
 * @module
 */
import type { Clock, Logger, Registry } from '@token-gateway/platform';
import { AuthorizationService } from '@token-gateway/schemas/ext-authz';
import { Counter } from 'prom-client';
import { type CredentialConfig, defaultCredentialConfig } from '../decision/credential.ts';
import { type DecideByRules, madeOfRules, noRules, type RuledDecision, type RuleSet } from '../rules/rules.ts';
import { type CheckRequestView, readCheckRequest } from './check-request.ts';
import { OkAnswers, refusal } from './check-response.ts';
import { type GrpcTransport, serveUnary, type TransportServer, type UnaryMethod } from './grpc-server.ts';
import { createRuledHeaderTest, identityHeaders } from './identity-headers.ts';
import { logRefusal } from './refusal-log.ts';

export interface ExtAuthzDeps {
  readonly decide: DecideByRules;
  /** Those that `decide` goes by; absent: none. */
  readonly rules?: () => RuleSet;
  readonly logger: Logger;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly random: () => number;
}

export interface ExtAuthzConfig {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Names of headers removed beside the default ones; a trailing `*` stands for any rest. */
  readonly removeHeaders: readonly string[];
  readonly credential?: CredentialConfig;
  readonly grpcTransport: GrpcTransport;
}

/** Serves until it is closed. */
export async function createExtAuthzServer(deps: ExtAuthzDeps, config: ExtAuthzConfig): Promise<TransportServer> {
  const { path } = AuthorizationService.check;
  return serveUnary(config.grpcTransport, deps, { path, handle: createExtAuthzHandler(deps, config) }, config);
}

/** From the bytes of a CheckRequest to those of its CheckResponse. Neither throws nor rejects. */
export function createExtAuthzHandler(
  { decide, rules = () => noRules, logger, registry }: Pick<ExtAuthzDeps, 'decide' | 'rules' | 'logger' | 'registry'>,
  { removeHeaders, credential = defaultCredentialConfig }: Pick<ExtAuthzConfig, 'removeHeaders' | 'credential'>,
): UnaryMethod['handle'] {
  const forgeable = createRuledHeaderTest(
    [...identityHeaders, ...removeHeaders, credential.header, credential.apiKeyHeader, 'authorization', 'dpop'],
    rules,
  );
  const okAnswers = madeOfRules(
    rules,
    ({ upstreamHeaders }) => new OkAnswers(credential, upstreamHeaders, forgeable()),
  );
  const failures = new Counter({
    name: 'tg_gateway_ext_authz_failures_total',
    help: 'Requests that ended in an unforeseen error, and were not allowed.',
    registers: [registry],
  });

  function failed(error: unknown): Uint8Array {
    failures.inc();
    logger.error({ err: error }, 'ext_authz check failed');
    return refusal('decision_unavailable', { retryAfterSeconds: 1 });
  }

  function answer(decision: RuledDecision, request: CheckRequestView): Uint8Array {
    if (decision.outcome === 'deny' || decision.outcome === 'unavailable') logRefusal(logger, request, decision.code);
    switch (decision.outcome) {
      case 'allow':
      case 'public':
        return okAnswers().of(decision, request);
      case 'deny':
        return refusal(decision.code, { dpopNonce: decision.dpopNonce, answerHeaders: decision.answerHeaders });
      case 'unavailable':
        return refusal(decision.code, { retryAfterSeconds: decision.retryAfterSeconds });
    }
  }

  return (bytes) => {
    try {
      const request = readCheckRequest(bytes, okAnswers().names);
      if (request === null) return refusal('request_invalid');
      // It would bring the internal token back to the caller.
      if (request.method === 'TRACE') return refusal('method_not_allowed');
      const decision = decide(request);
      if (!(decision instanceof Promise)) return answer(decision, request);
      return decision.then((settled) => answer(settled, request)).catch(failed);
    } catch (error) {
      return failed(error);
    }
  };
}
