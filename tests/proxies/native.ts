/** Proxies as processes of this machine: of its packages (Debian's in CI), and of PyPI. */
import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort } from '../parts/free-port.ts';
import { installCaddy, installTraefik } from '../parts/native-install.ts';
import { createFolder, createServer } from '../parts/native-server.ts';
import { startPart } from '../parts/server.ts';
import type { EdgeProxy, Surroundings } from './port.ts';
import { sample } from './sample.ts';

const run = promisify(execFile);

interface Launch {
  readonly folder: string;
  /** Where it listens. */
  readonly port: number;
  /** Another free one. */
  readonly innerPort: number;
}

interface Program {
  readonly name: string;
  readonly command: () => Promise<string>;
  readonly version: readonly string[];
  readonly files: (around: Surroundings, launch: Launch) => Readonly<Record<string, string>>;
  readonly args: (folder: string) => readonly string[];
}

function native({ name, command, version, files, args }: Program): EdgeProxy {
  return {
    name,
    async prepare() {
      const { stdout, stderr } = await run(await command(), [...version]);
      return `${stdout}${stderr}`.trim().split('\n', 1).join();
    },
    async start(around) {
      const folder = createFolder();
      const launch = { folder: folder.path, port: await freePort(), innerPort: await freePort() };
      for (const [file, text] of Object.entries(files(around, launch))) writeFileSync(join(folder.path, file), text);
      mkdirSync(join(folder.path, 'temporary'));
      const home = { HOME: folder.path, XDG_CONFIG_HOME: folder.path, XDG_DATA_HOME: folder.path };
      const server = createServer(folder, await command(), args(folder.path), { environment: home });
      const url = `http://127.0.0.1:${launch.port}`;
      const answers = async (): Promise<void> => {
        // Traefik listens before it has read its routes.
        const { status } = await fetch(url);
        if (status === 404) throw new Error('no route yet');
      };
      const part = await startPart(name, server, answers);
      return { url, stop: () => part.stop() };
    },
  };
}

const nginx = native({
  name: 'NGINX',
  command: async () => '/usr/sbin/nginx',
  version: ['-v'],
  files: ({ forwardAuthPort, servicePort }, { port }) => ({
    'token-gateway.conf': sample('nginx/token-gateway.conf', {
      'listen 8080': `listen 127.0.0.1:${port}`,
      'server gateway:8083': `server 127.0.0.1:${forwardAuthPort}`,
      'server service:8090': `server 127.0.0.1:${servicePort}`,
    }),
    'nginx.conf': `
      daemon off;
      pid nginx.pid;
      error_log stderr;
      ${process.getuid?.() === 0 ? 'user root;' : ''}
      events {}
      http {
        access_log off;
        ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((each) => `${each}_temp_path temporary/${each};`).join(' ')}
        include token-gateway.conf;
      }`,
  }),
  args: (folder) => ['-p', folder, '-c', 'nginx.conf', '-e', 'stderr'],
});

const caddy = (name: string, command: () => Promise<string>): EdgeProxy =>
  native({
    name,
    command,
    version: ['version'],
    files: ({ forwardAuthPort, servicePort }, { port }) => ({
      Caddyfile: `{
        admin off
      }
      ${sample('caddy/Caddyfile', {
        ':8080 {': `:${port} {\n\tbind 127.0.0.1`,
        'forward_auth gateway:8083': `forward_auth 127.0.0.1:${forwardAuthPort}`,
        'reverse_proxy service:8090': `reverse_proxy 127.0.0.1:${servicePort}`,
      })}`,
    }),
    args: () => ['run', '--config', 'Caddyfile', '--adapter', 'caddyfile'],
  });

const haproxy = native({
  name: 'HAProxy',
  command: async () => '/usr/sbin/haproxy',
  version: ['-v'],
  files: ({ forwardAuthPort, healthPort, servicePort }, { folder, port, innerPort }) => ({
    'haproxy.cfg': sample('haproxy/haproxy.cfg', {
      '/etc/haproxy/token-gateway.lua': join(folder, 'token-gateway.lua'),
      'bind :8080': `bind 127.0.0.1:${port}`,
      'bind 127.0.0.1:8084': `bind 127.0.0.1:${innerPort}`,
      'gateway-1:8083': `127.0.0.1:${forwardAuthPort}`,
      'port 9464': `port ${healthPort}`,
      'service:8090': `127.0.0.1:${servicePort}`,
    }),
    'token-gateway.lua': sample('haproxy/token-gateway.lua', { '127.0.0.1:8084': `127.0.0.1:${innerPort}` }),
  }),
  args: () => ['-db', '-f', 'haproxy.cfg'],
});

const traefik = native({
  name: 'Traefik',
  command: installTraefik,
  version: ['version', '--format', '{{.Version}}'],
  files: ({ forwardAuthPort, servicePort }, { folder, port }) => ({
    'traefik.yaml': `${sample('traefik/traefik.yaml', {
      '":8080"': `"127.0.0.1:${port}"`,
      '/etc/traefik/token-gateway.yaml': join(folder, 'token-gateway.yaml'),
    })}
global: { checkNewVersion: false, sendAnonymousUsage: false }
`,
    'token-gateway.yaml': sample('traefik/token-gateway.yaml', {
      'gateway:8083': `127.0.0.1:${forwardAuthPort}`,
      'service:8090': `127.0.0.1:${servicePort}`,
    }),
  }),
  args: () => ['--configFile=traefik.yaml'],
});

export const nativeProxies: readonly EdgeProxy[] = [
  nginx,
  caddy('Caddy', async () => 'caddy'),
  // It keeps a client's header where the answer's is empty (GHSA-7r4p-vjf4-gxv4).
  caddy('Caddy 2.10', () => installCaddy('2.10.2')),
  caddy('Caddy 2.11', () => installCaddy('2.11.7')),
  haproxy,
  traefik,
];
