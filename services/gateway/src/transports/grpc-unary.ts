import { createGrpcUnaryServer } from '@token-gateway/grpc-unary';
import { Counter } from 'prom-client';
import {
  type TransportServer,
  type UnaryMethod,
  type UnaryServerConfig,
  type UnaryServerDeps,
  unaryLimits,
} from './grpc-server.ts';

export function serveByGrpcUnary(
  { logger, registry, clock, random }: UnaryServerDeps,
  { path, handle }: UnaryMethod,
  { host, port }: UnaryServerConfig,
): Promise<TransportServer> {
  const violations = new Counter({
    name: 'tg_gateway_ext_authz_violations_total',
    help: 'Connections that were ended for what their peer did.',
    registers: [registry],
  });
  return createGrpcUnaryServer(
    {
      handlers: { [path]: ({ message }) => handle(message) },
      time: clock,
      random,
      onViolation(reason, { address }) {
        violations.inc();
        logger.debug({ reason, address }, 'ext_authz connection ended');
      },
      onFailure: (err) => logger.error({ err }, 'ext_authz transport failed'),
    },
    { host, port, limits: unaryLimits },
  );
}
