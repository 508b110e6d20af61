import type { Socket } from 'node:net';
import {
  type CallOptions,
  ChannelCredentials,
  type ChannelOptions,
  Client,
  type ClientReadableStream,
  connectivityState,
  Metadata,
} from '@grpc/grpc-js';

/** A method of the generated service. */
export interface Method<Request, Response> {
  readonly path: string;
  requestSerialize(value: Request): Buffer;
  responseDeserialize(value: Buffer): Response;
}

/** Well below the second in which a gateway should be fresh again: a server that is back is found at once. */
const channelOptions: ChannelOptions = {
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 500,
  'grpc.dns_min_time_between_resolutions_ms': 500,
  // A connection that died without a word is noticed within 1.5 s, and during a watch nothing else would.
  'grpc.keepalive_time_ms': 500,
  'grpc.keepalive_timeout_ms': 1000,
  'grpc.keepalive_permit_without_calls': 1,
  // A reset of the view carries every change of the longest life of a decision.
  'grpc.max_receive_message_length': 64 * 1024 * 1024,
  'grpc.use_local_subchannel_pool': 1,
  'grpc.enable_channelz': 0,
  'grpc.enable_http_proxy': 0,
};

/** grpc-js itself waits without end for a TCP connection, and for the first frame on it (grpc/grpc-node#2785). */
const connectTimeoutMs = 1000;

/**
 * One server, always connected or trying to be: the channel is given up and replaced when it does not come up in time.
 * Calls that are under way on it then end as UNAVAILABLE.
 */
export class Connection {
  readonly #address: string;
  readonly #credentials: ChannelCredentials;
  #sockets = new Set<Socket>();
  #client: Client;
  #isClosed = false;

  constructor(address: string, credentials: ChannelCredentials) {
    this.#address = address;
    this.#credentials = credentials;
    this.#client = this.#connect();
  }

  get isReady(): boolean {
    return !this.#isClosed && this.#client.getChannel().getConnectivityState(false) === connectivityState.READY;
  }

  /** Rejects with the gRPC status; `signal` cancels. */
  call<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions,
    signal: AbortSignal,
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        method.path,
        (value: Request) => method.requestSerialize(value),
        (bytes) => method.responseDeserialize(bytes),
        request,
        new Metadata(),
        options,
        (error, response) => (response === undefined ? reject(error) : resolve(response)),
      );
      signal.addEventListener('abort', () => call.cancel(), { once: true });
    });
  }

  stream<Request, Response>(method: Method<Request, Response>, request: Request): ClientReadableStream<Response> {
    return this.#client.makeServerStreamRequest(
      method.path,
      (value: Request) => method.requestSerialize(value),
      (bytes) => method.responseDeserialize(bytes),
      request,
    );
  }

  close(): void {
    this.#isClosed = true;
    this.#disconnect();
  }

  #connect(): Client {
    const sockets = new Set<Socket>();
    this.#sockets = sockets;
    const onSocket = (socket: Socket): void => {
      // Its channel may have been given up while it connected.
      if (this.#sockets !== sockets) socket.destroy();
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
    };
    const client = new Client(this.#address, new ObservedCredentials(this.#credentials, onSocket), channelOptions);
    // It asks for the first time after this method has returned.
    this.#keepConnected(client);
    return client;
  }

  #disconnect(): void {
    const sockets = this.#sockets;
    this.#sockets = new Set();
    this.#client.close();
    for (const socket of sockets) socket.destroy();
  }

  #keepConnected(client: Client): void {
    const isCurrent = (): boolean => !this.#isClosed && client === this.#client;
    client.waitForReady(Date.now() + connectTimeoutMs, (error) => {
      if (!isCurrent()) return;
      if (error) {
        this.#disconnect();
        this.#client = this.#connect();
      } else {
        client.getChannel().watchConnectivityState(connectivityState.READY, Number.POSITIVE_INFINITY, () => {
          if (isCurrent()) this.#keepConnected(client);
        });
      }
    });
  }
}

/** Credentials that tell which sockets are used with them: grpc-js leaves those of a closed channel half open. */
class ObservedCredentials extends ChannelCredentials {
  readonly #inner: ChannelCredentials;
  readonly #onSocket: (socket: Socket) => void;

  constructor(inner: ChannelCredentials, onSocket: (socket: Socket) => void) {
    super();
    this.#inner = inner;
    this.#onSocket = onSocket;
  }

  override _isSecure(): boolean {
    return this.#inner._isSecure();
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(
    ...args: Parameters<ChannelCredentials['_createSecureConnector']>
  ): ReturnType<ChannelCredentials['_createSecureConnector']> {
    const connector = this.#inner._createSecureConnector(...args);
    return {
      connect: (socket) => {
        this.#onSocket(socket);
        return connector.connect(socket);
      },
      waitForReady: () => connector.waitForReady(),
      getCallCredentials: () => connector.getCallCredentials(),
      destroy: () => connector.destroy(),
    };
  }
}
