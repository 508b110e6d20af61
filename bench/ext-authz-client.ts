import { credentials, Metadata, makeClientConstructor } from '@grpc/grpc-js';
import { AuthorizationService, CheckRequest, CheckResponse } from '@token-gateway/schemas/ext-authz';

/** Asks one gateway as Envoy does. */
export interface ExtAuthzClient {
  /** Resolves with the gRPC status of the decision, 0 = accepted; rejects when there is no answer in five seconds. */
  check(request: Buffer): Promise<number>;
  /** The same, and all that the answer says. */
  ask(request: Buffer): Promise<CheckResponse>;
  /** The same as bytes. */
  askRaw(request: Buffer): Promise<Buffer>;
  close(): void;
}

const deadlineMs = 5000;
const { path } = AuthorizationService.check;
const Client = makeClientConstructor({}, 'Authorization');

/** A request with the credential, encoded once: the client should cost as little as it can beside what it measures. */
export function checkRequest(authorization: string, address = '10.0.0.1'): Buffer {
  const headers = {
    ':authority': 'orders.example',
    ':method': 'GET',
    ':path': '/orders/42?expand=lines',
    ':scheme': 'http',
    accept: 'application/json',
    'accept-encoding': 'gzip',
    'user-agent': 'bench',
    'x-envoy-internal': 'true',
    'x-forwarded-for': '192.0.2.1',
    'x-forwarded-proto': 'https',
    'x-request-id': '7e0d0b9c-2a11-4ff1-9d9f-4a0f0f6d3d3c',
    authorization,
  };
  const http = {
    method: 'GET',
    path: '/orders/42?expand=lines',
    host: 'orders.example',
    scheme: 'http',
    size: -1,
    headers,
  };
  const source = { address: { socketAddress: { address, portValue: 40_000 } } };
  return Buffer.from(
    CheckRequest.encode(CheckRequest.fromPartial({ attributes: { source, request: { http } } })).finish(),
  );
}

export function createExtAuthzClient(address: string): ExtAuthzClient {
  const client = new Client(address, credentials.createInsecure());
  const call = <T>(request: Buffer, read: (response: Buffer) => T): Promise<T> =>
    new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        path,
        (bytes: Buffer) => bytes,
        read,
        request,
        new Metadata(),
        { deadline: Date.now() + deadlineMs },
        (error, answer) => (error === null && answer !== undefined ? resolve(answer) : reject(error)),
      );
    });
  return {
    check: (request) => call(request, (bytes) => CheckResponse.decode(bytes).status?.code ?? -1),
    ask: (request) => call(request, (bytes) => CheckResponse.decode(bytes)),
    askRaw: (request) => call(request, (bytes) => bytes),
    close: () => client.close(),
  };
}

/** Only a grant has a token in it, which makes it long: to be asked of every answer without decoding it. */
export function isGranted(answer: Buffer): boolean {
  return answer.length > 400;
}

/** Which refusal an answer is, if it is one; a grant has a token in it, and is not told. */
export function refusalOf(answer: Buffer): string {
  const { status } = CheckResponse.decode(answer);
  return status?.code === 0 ? 'granted' : `${status?.code} ${status?.message}`;
}

/** A client for which what is accepted ends when the gateway answers anything else than now, such as another token. */
export async function whileTheSame(client: ExtAuthzClient, request: Buffer): Promise<ExtAuthzClient> {
  const now = JSON.stringify(await client.ask(request));
  const check = async (asked: Buffer): Promise<number> => {
    const response = await client.ask(asked);
    if (response.status?.code !== 0) throw new Error('a good credential is refused');
    return JSON.stringify(response) === now ? 0 : -1;
  };
  return { ...client, check };
}

/** Throws when it is no grant. */
export function tokenOf(answer: Buffer): string {
  const { status, httpResponse } = CheckResponse.decode(answer);
  const [option] = httpResponse?.$case === 'okResponse' ? httpResponse.value.headers : [];
  const token = /^Bearer (.+)$/.exec(option?.header?.value ?? '')?.[1];
  if (status?.code !== 0 || token === undefined) throw new Error(`not granted: ${JSON.stringify(status)}`);
  return token;
}
