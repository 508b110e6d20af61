export type { Answer, Call, Handler, Peer } from './call.ts';
export { defaultLimits, type Limits } from './limits.ts';
export {
  createGrpcUnaryServer,
  type GrpcUnaryConfig,
  type GrpcUnaryDeps,
  type GrpcUnaryServer,
} from './server.ts';
export { type Failure, status } from './status.ts';
export type { Time, Timer } from './time.ts';
