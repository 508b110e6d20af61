import { credentials, Metadata } from '@grpc/grpc-js';
import { AuthorizationClient, CheckRequest } from '@token-gateway/schemas/ext-authz';

/** Asks one gateway as Envoy does. */
export interface ExtAuthzClient {
  /** Resolves with the gRPC status of the decision, 0 = accepted; rejects when there is no answer in five seconds. */
  check(authorization: string): Promise<number>;
  close(): void;
}

const deadlineMs = 5000;

export function createExtAuthzClient(address: string): ExtAuthzClient {
  const client = new AuthorizationClient(address, credentials.createInsecure());
  return {
    check(authorization) {
      const request = CheckRequest.fromPartial({
        attributes: {
          request: {
            http: {
              method: 'GET',
              path: '/orders/42?expand=lines',
              host: 'orders.example',
              scheme: 'http',
              protocol: 'HTTP/1.1',
              size: -1,
              headers: { ':method': 'GET', ':path': '/orders/42?expand=lines', 'user-agent': 'bench', authorization },
            },
          },
        },
      });
      return new Promise((resolve, reject) => {
        client.check(request, new Metadata(), { deadline: Date.now() + deadlineMs }, (error, response) => {
          if (error !== null) reject(error);
          else resolve(response.status?.code ?? -1);
        });
      });
    },
    close: () => client.close(),
  };
}
