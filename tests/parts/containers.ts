import type { ContainerRuntimeClient } from 'testcontainers';
import { type PostgresServer, startEnvoy, startKafka, startKeycloak, startPostgres, startRedis } from './assembly.ts';
import { createDisk, type Disk } from './disk.ts';
import { freePort } from './free-port.ts';
import { noteLeftover } from './leftovers.ts';
import type { PartName, PartsProvider } from './port.ts';
import { type Server, shutDownSeconds } from './server.ts';
import {
  kafkaHeap,
  kafkaProperties,
  keycloakEnvironment,
  ownDiskMib,
  postgresSettings,
  postgresUser,
  primaryConnection,
  redisArguments,
} from './settings.ts';

const hostInside = 'host.docker.internal';

const images: Readonly<Record<PartName, string>> = {
  postgres: 'postgres:18',
  kafka: 'apache/kafka:4.1.1',
  redis: 'valkey/valkey:9.1',
  envoy: 'envoyproxy/envoy:v1.40.0',
  keycloak: 'quay.io/keycloak/keycloak:26.5.6',
};

/** Parts in containers, through testcontainers' client of the Docker engine. */
export function createContainerParts(): PartsProvider {
  return {
    name: 'containers',

    async prepare(part) {
      const { ImageName } = await import('testcontainers');
      const client = await connect();
      await client.image.pull(ImageName.fromString(images[part]));
      return images[part];
    },

    async postgres({ ownDisk = false } = {}) {
      const disk = ownDisk ? await createDisk(ownDiskMib) : null;
      const environment = { POSTGRES_PASSWORD: postgresUser.password, POSTGRES_INITDB_ARGS: '--no-sync' };
      return startPostgres(await createPostgres({ environment, command: ['postgres', ...postgresSettings] }, disk));
    },

    async kafka({ ownDisk = false } = {}) {
      const port = await freePort();
      const disk = ownDisk ? await createDisk(ownDiskMib) : null;
      const client = await connect();
      const properties = kafkaProperties({
        listen: '0.0.0.0:9092',
        advertised: `${hostOf(client)}:${port}`,
        controller: 'localhost:9093',
        logFolder: '/var/lib/kafka/data',
      });
      const environment = Object.entries(properties).map(([name, value]) => [
        `KAFKA_${name.toUpperCase().replaceAll('.', '_')}`,
        value,
      ]);
      const server = await createServer(client, {
        part: 'kafka',
        ports: { 9092: port },
        environment: { ...Object.fromEntries(environment), KAFKA_HEAP_OPTS: kafkaHeap },
        // Some builds of the image ship their templates read-only, and its start script writes to copies of them.
        command: ['bash', '-c', 'chmod -f u+w /etc/kafka/docker/* /opt/kafka/config/*; exec /etc/kafka/docker/run'],
        ...(disk && { folders: { '/var/lib/kafka/data': disk.path } }),
      });
      return startKafka(server, { host: hostOf(client), port }, disk);
    },

    async redis({ notifyKeyspaceEvents = 'Egx' } = {}) {
      const port = await freePort();
      const client = await connect();
      const server = await createServer(client, {
        part: 'redis',
        ports: { 6379: port },
        command: ['valkey-server', ...redisArguments(notifyKeyspaceEvents)],
      });
      return startRedis(server, { host: hostOf(client), port });
    },

    async envoy(config) {
      const inside = { hostname: hostInside, listenerPort: 10_000, adminPort: 9901 };
      const listenerPort = await freePort();
      const adminPort = await freePort();
      const client = await connect();
      const host = hostOf(client);
      const server = await createServer(client, {
        part: 'envoy',
        ports: { [inside.listenerPort]: listenerPort, [inside.adminPort]: adminPort },
        command: ['envoy', '--log-level', 'warn', '--config-yaml', config(inside)],
      });
      return startEnvoy(server, { host, port: listenerPort }, { host, port: adminPort });
    },

    async keycloak() {
      const port = await freePort();
      const client = await connect();
      const server = await createServer(client, {
        part: 'keycloak',
        ports: { 8080: port },
        environment: keycloakEnvironment,
        command: ['start-dev'],
      });
      return startKeycloak(server, { host: hostOf(client), port }, hostInside);
    },
  };
}

async function createPostgres(
  spec: Pick<ContainerSpec, 'environment' | 'command'>,
  disk: Disk | null = null,
): Promise<PostgresServer> {
  const port = await freePort();
  const client = await connect();
  const folders = disk === null ? {} : { '/var/lib/postgresql': disk.path };
  const server = await createServer(client, { part: 'postgres', ports: { 5432: port }, folders, ...spec });
  const copy = () =>
    createPostgres({
      environment: { PRIMARY: primaryConnection(hostInside, port) },
      command: ['bash', '-c', followPrimary, 'standby', ...postgresSettings],
    });
  return { server, disk, host: hostOf(client), port, copy };
}

/** At its first start it copies its primary; the image's own script gives the files to the right user. */
const followPrimary = `
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$PGDATA"
  pg_basebackup --dbname="$PRIMARY" --pgdata="$PGDATA" --checkpoint=fast --no-sync || exit
  echo "primary_conninfo = '$PRIMARY'" > "$PGDATA/postgresql.auto.conf"
  touch "$PGDATA/standby.signal"
fi
exec docker-entrypoint.sh postgres "$@"`;

async function connect(): Promise<ContainerRuntimeClient> {
  const { getContainerRuntimeClient } = await import('testcontainers');
  return await getContainerRuntimeClient();
}

/** Not `localhost`: an engine may give a port to one container on IPv4 and to another on IPv6. */
function hostOf(client: ContainerRuntimeClient): string {
  const { host } = client.info.containerRuntime;
  return host === 'localhost' ? '127.0.0.1' : host;
}

interface ContainerSpec {
  readonly part: PartName;
  /** Port inside -> port of the host: a fixed one, for the engine picks another at each start. */
  readonly ports: Readonly<Record<number, number>>;
  readonly environment?: Readonly<Record<string, string>>;
  readonly command?: readonly string[];
  /** Folder inside -> folder of the host, for an engine on this machine. */
  readonly folders?: Readonly<Record<string, string>>;
}

async function createServer(client: ContainerRuntimeClient, spec: ContainerSpec): Promise<Server> {
  const ports = Object.entries(spec.ports).map(([inside, host]) => [`${inside}/tcp`, String(host)] as const);
  const container = await client.container.create({
    Image: images[spec.part],
    ...(spec.command && { Cmd: [...spec.command] }),
    Env: Object.entries(spec.environment ?? {}).map(([name, value]) => `${name}=${value}`),
    ExposedPorts: Object.fromEntries(ports.map(([inside]) => [inside, {}])),
    Labels: { 'org.testcontainers': 'true' },
    HostConfig: {
      PortBindings: Object.fromEntries(ports.map(([inside, host]) => [inside, [{ HostPort: host }]])),
      Binds: Object.entries(spec.folders ?? {}).map(([inside, host]) => `${host}:${inside}`),
      ExtraHosts: [`${hostInside}:host-gateway`],
    },
  });
  const crossOut = noteLeftover({ container: container.id });
  const state = async () => (await container.inspect()).State;
  return {
    async start() {
      await container.start();
    },
    async pause() {
      // The kernel may not have stopped every thread of a busy process in the time that the runtime gives it.
      for (let attempt = 1; ; attempt += 1) {
        try {
          await container.pause();
          return;
        } catch (error) {
          if (attempt === 5 || !String(error).includes('unable to freeze')) throw error;
        }
      }
    },
    async resume() {
      await container.unpause();
    },
    async kill() {
      await container.kill();
      await container.wait();
    },
    async shutDown() {
      await container.stop({ t: shutDownSeconds });
    },
    async remove() {
      await container.remove({ force: true, v: true });
      crossOut();
    },
    async running() {
      return (await state()).Running;
    },
    async output() {
      return (await container.logs({ stdout: true, stderr: true, tail: 30 })).toString('utf8');
    },
  };
}
