/** How the parts are set up, the same for both providers. */

export const postgresUser = { name: 'postgres', password: 'test' } as const;

/** Flags of the server; it stays durable, so that what a test measures or kills behaves as in production. */
export const postgresSettings = ['-c', 'max_connections=200'] as const;

/** What a standby calls itself, and its primary calls it. */
export const standbyName = 'standby';

/** How a standby reaches its primary. */
export function primaryConnection(host: string, port: number): string {
  const { name, password } = postgresUser;
  return `host=${host} port=${port} user=${name} password=${password} application_name=${standbyName}`;
}

export function redisArguments(notifyKeyspaceEvents: string): string[] {
  const append = ['--appendonly', 'yes', '--appendfsync', 'no', '--save', ''];
  return [...append, '--notify-keyspace-events', notifyKeyspaceEvents, '--protected-mode', 'no'];
}

export interface KafkaAddresses {
  readonly listen: string;
  readonly advertised: string;
  readonly controller: string;
  readonly logFolder: string;
}

/** One node in KRaft mode. The session is short, for a killed broker is let in again only when its last one has ended. */
export function kafkaProperties({ listen, advertised, controller, logFolder }: KafkaAddresses): Record<string, string> {
  return {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@${controller}`,
    listeners: `CLIENT://${listen},CONTROLLER://${controller}`,
    'advertised.listeners': `CLIENT://${advertised}`,
    'listener.security.protocol.map': 'CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT',
    'inter.broker.listener.name': 'CLIENT',
    'controller.listener.names': 'CONTROLLER',
    'broker.session.timeout.ms': '2000',
    'broker.heartbeat.interval.ms': '400',
    'auto.create.topics.enable': 'false',
    'offsets.topic.num.partitions': '1',
    'offsets.topic.replication.factor': '1',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'group.initial.rebalance.delay.ms': '0',
    'log.dirs': logFolder,
  };
}

/** Room for a long test, and filled within a second. */
export const ownDiskMib = 768;

export const kafkaHeap = '-Xms256m -Xmx512m';

export const keycloakAdmin = { username: 'admin', password: 'test' } as const;

export const keycloakEnvironment = {
  KC_BOOTSTRAP_ADMIN_USERNAME: keycloakAdmin.username,
  KC_BOOTSTRAP_ADMIN_PASSWORD: keycloakAdmin.password,
  JAVA_OPTS_KC_HEAP: '-Xms128m -Xmx512m',
} as const;

/** As the text of a Java properties file. */
export function toProperties(values: Readonly<Record<string, string>>): string {
  return Object.entries(values)
    .map(([name, value]) => `${name}=${value}\n`)
    .join('');
}
