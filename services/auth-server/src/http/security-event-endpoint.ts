/**
 * POST /signals/security-events: a transmitter pushes one security event token (RFC 8935). Answered 202 once what it says
 * is a change in the log. A caller who cannot sign learns nothing but whether an issuer is heard at all.
 * @module
 */
import { type Clock, type ErrorCode, errorEntry, ServiceError, toServiceError } from '@token-gateway/platform';
import type { Static } from 'typebox';
import { createSecurityEvents } from '../signals/security-event.ts';
import type { SignalReceiver } from '../signals/signal-receiver.ts';
import { isUnavailable } from './oauth-error.ts';
import type { SecurityEventErrorSchema } from './schemas.ts';

export interface Push {
  /** The media type of the body. */
  readonly type: string;
  readonly token: string;
  readonly authorization: string | undefined;
}

export interface SecurityEventEndpointDeps {
  readonly receiveSignal: SignalReceiver;
  readonly clock: Clock;
}

/** Rejects with ServiceError. */
export type SecurityEventEndpoint = (push: Push) => Promise<void>;

export function createSecurityEventEndpoint({
  receiveSignal,
  clock,
}: SecurityEventEndpointDeps): SecurityEventEndpoint {
  return async ({ type, token, authorization }) => {
    if (type !== 'application/secevent+jwt') throw new ServiceError('request_invalid', { detail: 'media type' });
    const [, bearerToken = ''] = /^bearer +([\w.~+/-]+=*)$/i.exec(authorization ?? '') ?? [];
    await receiveSignal(token, createSecurityEvents({ clock, bearerToken }));
  };
}

/** RFC 8935 section 2.4, of every code that is not its `invalid_request`. */
const errorOf: Partial<
  Record<ErrorCode, 'invalid_key' | 'invalid_issuer' | 'invalid_audience' | 'authentication_failed'>
> = {
  token_algorithm_refused: 'invalid_key',
  token_key_unknown: 'invalid_key',
  token_signature_invalid: 'invalid_key',
  token_issuer_unknown: 'invalid_issuer',
  token_audience_refused: 'invalid_audience',
  signal_sender_refused: 'authentication_failed',
};

const descriptions = {
  invalid_request: 'The security event token is not valid.',
  invalid_key: 'No key that is accepted from the issuer verifies the security event token.',
  invalid_issuer: 'Security events of this issuer are not heard.',
  invalid_audience: 'The security event token is for somebody else.',
  authentication_failed: 'The transmitter is not authenticated.',
} as const;

/** Anything thrown, as RFC 8935 section 2.3 has it; what could not be decided or done may be sent again. */
export function toSecurityEventAnswer(error: unknown): {
  readonly status: 400 | 503;
  readonly body: Static<typeof SecurityEventErrorSchema>;
} {
  const { code } = toServiceError(error);
  const isOversize = error instanceof Error && 'code' in error && error.code === 'FST_ERR_CTP_BODY_TOO_LARGE';
  if (isUnavailable(code) && !isOversize) {
    return {
      status: 503,
      body: { err: 'temporarily_unavailable', description: errorEntry('decision_unavailable').publicMessage },
    };
  }
  const err = errorOf[code] ?? 'invalid_request';
  return { status: 400, body: { err, description: descriptions[err] } };
}
