import { createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, TLSSocket, type TlsOptions } from 'node:tls';
import { Budget } from './budget.ts';
import type { Handler, Peer } from './call.ts';
import { Connection, type Shared } from './connection.ts';
import { defaultLimits, type Limits } from './limits.ts';
import type { Time } from './time.ts';

export interface GrpcUnaryDeps {
  /** By the name of their method, such as `/package.Service/Method`. */
  readonly handlers: Readonly<Record<string, Handler>>;
  readonly time: Time;
  /** From 0 up to 1. */
  readonly random: () => number;
  /** Why a peer's connection was ended. */
  readonly onViolation?: (reason: string, peer: Peer) => void;
  /** What a handler threw, or rejected with; without a method: what this server did not foresee. */
  readonly onFailure?: (error: unknown, method: string) => void;
}

export interface GrpcUnaryConfig {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Absent: plain text. */
  readonly tls?: TlsOptions;
  readonly limits?: Partial<Limits>;
}

export interface GrpcUnaryServer {
  readonly port: number;
  readonly connectionCount: number;
  /** Takes no more connections and calls, and resolves when those under way are answered, or at the latest in `drainMsMax`. */
  close(): Promise<void>;
}

/** Serves unary calls of gRPC over HTTP/2 until it is closed. */
export async function createGrpcUnaryServer(
  { handlers, time, random, onViolation, onFailure }: GrpcUnaryDeps,
  { host, port, tls, limits: someLimits }: GrpcUnaryConfig,
): Promise<GrpcUnaryServer> {
  const limits = { ...defaultLimits, ...someLimits };
  const connections = new Set<Connection>();
  let whenNone: (() => void) | null = null;
  const shared: Shared = {
    handlers: new Map(Object.entries(handlers)),
    limits,
    time,
    random,
    budget: new Budget(limits.serverOctetsMax),
    onViolation: (reason, peer) => onViolation?.(reason, peer),
    onFailure: (error, method) => onFailure?.(error, method),
    onClose(connection) {
      connections.delete(connection);
      if (connections.size === 0) whenNone?.();
    },
  };

  function accept(socket: Socket): void {
    connections.add(new Connection(socket, peerOf(socket), shared));
  }

  function acceptSecure(socket: TLSSocket): void {
    if (socket.alpnProtocol === 'h2') accept(socket);
    else socket.destroy();
  }

  const server: Server =
    tls === undefined
      ? createTcpServer({ noDelay: true }, accept)
      : createTlsServer(
          { minVersion: 'TLSv1.2', handshakeTimeout: limits.handshakeMsMax, ...tls, ALPNProtocols: ['h2'] },
          acceptSecure,
        );
  // With node:cluster, what is not dropped is offered to the next process, and on and on while all have as many as they may.
  Object.assign(server, { maxConnections: limits.connectionsMax, dropMaxConnection: true });
  // A handshake that fails is over when it is told of.
  server.on('tlsClientError', () => undefined);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.off('error', reject);
      // A connection that cannot be accepted, for want of descriptors.
      server.on('error', (error) => onFailure?.(error, ''));
      resolve();
    });
  });
  const address = server.address();

  return {
    port: typeof address === 'object' && address !== null ? address.port : port,
    get connectionCount() {
      return connections.size;
    },
    close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve())).then(
        () =>
          new Promise<void>((resolve) => {
            if (connections.size === 0) resolve();
            else whenNone = resolve;
          }),
      );
      const deadline = time.setTimer(() => {
        for (const connection of connections) connection.destroy();
      }, limits.drainMsMax);
      for (const connection of connections) connection.drain();
      return closed.finally(() => deadline.cancel());
    },
  };
}

function peerOf(socket: Socket): Peer {
  return {
    address: socket.remoteAddress ?? '',
    port: socket.remotePort ?? 0,
    certificate: () => (socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined),
  };
}
