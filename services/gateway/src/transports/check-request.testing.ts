import { CheckRequest } from '@token-gateway/schemas/ext-authz';
import { defaultCredentialConfig } from '../decision/credential.ts';
import { type CheckRequestView, readCheckRequest } from './check-request.ts';
import { HeaderNames } from './header-names.ts';
import { createHeaderTest } from './identity-headers.ts';

type Attributes = NonNullable<Parameters<typeof CheckRequest.fromPartial>[0]['attributes']>;
type Http = NonNullable<NonNullable<Attributes['request']>['http']>;

/** Where nothing can be forged. */
export const plainNames = new HeaderNames(defaultCredentialConfig, createHeaderTest([]));
/** Where all can be that is no credential. */
export const allForgeable = new HeaderNames(defaultCredentialConfig, { matches: () => true, patterns: ['*'] });

/** A request as Envoy sends it with `encode_raw_headers`, and as it is read here. */
export function requestOfEnvoy(
  headers: readonly (readonly [name: string, value: string])[],
  http: Http = {},
  source: NonNullable<Attributes['source']> = {},
  names: HeaderNames = plainNames,
): CheckRequestView {
  const list = headers.map(([key, value]) => ({ key, rawValue: Buffer.from(value, 'latin1') }));
  const request = { http: { ...http, headerMap: { headers: list } } };
  const message = CheckRequest.fromPartial({ attributes: { source, request } });
  const read = readCheckRequest(Buffer.from(CheckRequest.encode(message).finish()), names);
  if (read === null) throw new Error('it is no request');
  return read;
}
