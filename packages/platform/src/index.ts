export * from './api-key.ts';
export * from './audit/identities.ts';
export * from './audit/kafka.ts';
export * from './audit/port.ts';
export * from './audit/tally.ts';
export * from './audit/trail.ts';
export * from './cidr.ts';
export * from './claim-expression.ts';
export * from './clock/deadline.ts';
export * from './clock/port.ts';
export * from './clock/system.ts';
export * from './config.ts';
export * from './database/pglite.ts';
export * from './database/port.ts';
export * from './database/postgres.ts';
export * from './database/postgres-fence.ts';
export * from './database/sql-state.ts';
export * from './errors.ts';
export * from './event-log/kafka.ts';
export * from './event-log/memory.ts';
export * from './event-log/port.ts';
export * from './event-log/watch.ts';
export { gather, share } from './gather.ts';
export * from './health.ts';
export * from './http-problem.ts';
export * from './identity-client/connect.ts';
export * from './identity-client/grpc.ts';
export * from './identity-client/grpc-server.ts';
export * from './identity-client/port.ts';
export * from './key-vault/file.ts';
export * from './key-vault/memory.ts';
export * from './key-vault/open.ts';
export * from './key-vault/pkcs11.ts';
export * from './key-vault/port.ts';
export * from './lifecycle.ts';
export * from './mutual-tls/open.ts';
export * from './mutual-tls/peers.ts';
export { startPeriodic } from './periodic.ts';
export * from './signal/memory.ts';
export * from './signal/port.ts';
export { createRedisKeyspaceSource } from './signal/redis-keyspace.ts';
export {
  createRedisPubSubSource,
  createRedisSink,
  type RedisSinkOptions,
  type RedisSourceOptions,
} from './signal/redis-pubsub.ts';
export * from './signal/watch.ts';
export * from './single-use/memory.ts';
export * from './single-use/port.ts';
export * from './single-use/recent-keys.ts';
export * from './single-use/redis.ts';
export * from './strict-json.ts';
export * from './telemetry.ts';
export * from './token-cache/memory.ts';
export * from './token-cache/port.ts';
export * from './token-cache/redis.ts';
export * from './token-prefixes.ts';
