import { Client, credentials, Metadata } from '@grpc/grpc-js';
import type { Clock } from '@token-gateway/platform';
import { AuthorizationService, CheckRequest, type CheckResponse } from '@token-gateway/schemas/ext-authz';
import type { GatewayProbe, ProbeAnswer } from './observer.ts';

const timeoutMs = 1000;
const refusals: ReadonlySet<number> = new Set([401, 403]);
const { path, requestSerialize, responseDeserialize } = AuthorizationService.check;

/** The gateway at an address of the configuration: a URL is asked by HTTP, `host:port` by Envoy's protocol. */
export function createProbe(address: string, clock: Clock): GatewayProbe {
  return address.includes('://') ? createHttpProbe(address) : createExtAuthzProbe(address, clock);
}

function createExtAuthzProbe(address: string, clock: Clock): GatewayProbe {
  const client = new Client(address, credentials.createInsecure(), {
    'grpc.max_reconnect_backoff_ms': 1000,
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_http_proxy': 0,
  });
  return {
    name: address,
    ask(key) {
      const headers = { ':method': 'GET', ':path': '/', authorization: `Token ${key}` };
      const http = { method: 'GET', path: '/', host: 'observer', scheme: 'http', headers };
      const request = CheckRequest.fromPartial({ attributes: { request: { http } } });
      const deadline = clock.now().wallMs + timeoutMs;
      return new Promise((resolve) => {
        client.makeUnaryRequest(
          path,
          requestSerialize,
          responseDeserialize,
          request,
          new Metadata(),
          { deadline },
          (error, response) => resolve(error === null && response !== undefined ? answerOf(response) : 'unavailable'),
        );
      });
    },
    close: () => client.close(),
  };
}

function answerOf({ status, httpResponse }: CheckResponse): ProbeAnswer {
  if (httpResponse?.$case === 'deniedResponse') {
    return refusals.has(httpResponse.value.status?.code ?? 0) ? 'refused' : 'unavailable';
  }
  return status?.code === 0 ? 'accepted' : 'unavailable';
}

function createHttpProbe(url: string): GatewayProbe {
  const closing = new AbortController();
  return {
    name: url,
    async ask(key) {
      try {
        const signal = AbortSignal.any([AbortSignal.timeout(timeoutMs), closing.signal]);
        const response = await fetch(url, { headers: { authorization: `Token ${key}` }, redirect: 'manual', signal });
        await response.body?.cancel();
        if (refusals.has(response.status)) return 'refused';
        return response.ok ? 'accepted' : 'unavailable';
      } catch {
        return 'unavailable';
      }
    },
    close: () => closing.abort(),
  };
}
