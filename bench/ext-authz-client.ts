import { credentials, Metadata, makeClientConstructor } from '@grpc/grpc-js';
import { AuthorizationService, CheckRequest, CheckResponse } from '@token-gateway/schemas/ext-authz';

/** Asks one gateway as Envoy does. */
export interface ExtAuthzClient {
  /** Resolves with the gRPC status of the decision, 0 = accepted; rejects when there is no answer in five seconds. */
  check(request: Buffer): Promise<number>;
  close(): void;
}

const deadlineMs = 5000;
const { path } = AuthorizationService.check;
const Client = makeClientConstructor({}, 'Authorization');

/** A request with the credential, encoded once: the client should cost as little as it can beside what it measures. */
export function checkRequest(authorization: string): Buffer {
  const headers = { ':method': 'GET', ':path': '/orders/42?expand=lines', 'user-agent': 'bench', authorization };
  const http = {
    method: 'GET',
    path: '/orders/42?expand=lines',
    host: 'orders.example',
    scheme: 'http',
    size: -1,
    headers,
  };
  return Buffer.from(CheckRequest.encode(CheckRequest.fromPartial({ attributes: { request: { http } } })).finish());
}

export function createExtAuthzClient(address: string): ExtAuthzClient {
  const client = new Client(address, credentials.createInsecure());
  return {
    check: (request) =>
      new Promise((resolve, reject) => {
        client.makeUnaryRequest(
          path,
          (bytes: Buffer) => bytes,
          (bytes: Buffer) => CheckResponse.decode(bytes).status?.code ?? -1,
          request,
          new Metadata(),
          { deadline: Date.now() + deadlineMs },
          (error, code) => (error === null && code !== undefined ? resolve(code) : reject(error)),
        );
      }),
    close: () => client.close(),
  };
}
