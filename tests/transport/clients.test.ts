/** Clients that nobody here wrote, and what is between them and a server: the same at this server and at grpc-js. */
import assert from 'node:assert/strict';
import { after, before, it, suite } from 'node:test';
import { type Client, credentials, Metadata, makeClientConstructor, status } from '@grpc/grpc-js';
import { echoServers, type Served } from '../../packages/grpc-unary/src/echo.testing.ts';
import { type EnvoyAddress, partsSuite } from '../parts/index.ts';
import { Random } from '../simulation/random.ts';
import { BreakingLink } from './breaking-link.ts';
import { grpcGoClient, h2spec } from './programs.ts';

const secondsOfBreaking = Number(process.env['TRANSPORT_SECONDS'] ?? 5);

await partsSuite('a server of gRPC', ['envoy'], (parts) => {
  for (const [name, serve] of Object.entries(echoServers)) {
    suite(name, () => {
      let served: Served;
      before(async () => {
        served = await serve({ host: '0.0.0.0' });
      });
      after(() => served.close());

      it('does what a client of grpc-go may expect', async () => {
        const { isContent, output } = await grpcGoClient(served.port);
        assert.ok(isContent, output);
      });

      if (name === 'grpc-unary') {
        it('passes every case of h2spec', async () => {
          for (const isStrict of [false, true]) {
            const { isContent, output } = await h2spec(served.port, isStrict);
            assert.ok(isContent, output);
            // 145 cases, and one more where it is strict.
            assert.match(output, /\b(14[56]) tests, \1 passed, 0 skipped, 0 failed/);
          }
        });
      }

      it('gives Envoy no wrong answer while connections are cut, reset, and stand still', async () => {
        await using link = new BreakingLink({ host: '127.0.0.1', port: served.port }, new Random(1, 'link'));
        const linkPort = await link.listen();
        const envoy = await parts.envoy((address) => envoyConfig(address, linkPort));
        const { host } = new URL(envoy.url);
        const clients = Array.from({ length: 4 }, () => createClient(host));
        try {
          const asked = { right: 0, failed: 0 };
          const until = performance.now() + secondsOfBreaking * 1000;
          const loop = async (worker: number): Promise<void> => {
            const client = clients[worker % clients.length] ?? assert.fail();
            for (let round = 0; performance.now() < until; round += 1) {
              const message = `${'xp'[round % 2]} ${worker} ${round} ${'.'.repeat((round * 37) % 3000)}`;
              const answer = await ask(client, message);
              if (typeof answer === 'number') {
                assert.ok(brokenOff.includes(answer), `status ${answer}`);
                asked.failed += 1;
              } else {
                assert.equal(answer, message);
                asked.right += 1;
              }
              if ((worker * 7919 + round) % 101 === 0) link.break();
            }
          };
          await Promise.all(Array.from({ length: 64 }, (_, worker) => loop(worker)));
          const broken = Object.values(link.broken).reduce((sum, count) => sum + count, 0);
          console.log(`${name}: ${asked.right} answers, ${asked.failed} broken off, ${broken} connections broken`);
          assert.ok(asked.right > 100 && broken > 10);
          const healed = async (): Promise<string | number> => ask(clients[0] ?? assert.fail(), 'x');
          let answer = await healed();
          while (answer !== 'x') answer = await healed();
        } finally {
          for (const client of clients) client.close();
          await envoy.stop();
        }
      });
    });
  }
});

const brokenOff: readonly number[] = [status.UNAVAILABLE, status.DEADLINE_EXCEEDED, status.INTERNAL, status.UNKNOWN];
const callMs = 1000;

function createClient(host: string): Client {
  return new (makeClientConstructor({}, 'Echo'))(host, credentials.createInsecure());
}

/** The answer, or the status without one. */
function ask(client: Client, message: string): Promise<string | number> {
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      '/test.Echo/Say',
      (text: string) => Buffer.from(text),
      String,
      message,
      new Metadata(),
      { deadline: Date.now() + callMs },
      (error, answer) => resolve(error === null ? (answer ?? '') : error.code),
    );
  });
}

function envoyConfig({ hostname, listenerPort, adminPort }: EnvoyAddress, serverPort: number): string {
  return `
admin: { address: { socket_address: { address: 0.0.0.0, port_value: ${adminPort} } } }
static_resources:
  listeners:
    - name: calls
      address: { socket_address: { address: 0.0.0.0, port_value: ${listenerPort} } }
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: calls
                codec_type: HTTP2
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes: [{ match: { prefix: / }, route: { cluster: server, timeout: 2s } }]
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:
    - name: server
      type: STRICT_DNS
      connect_timeout: 0.5s
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: { http2_protocol_options: {} }
      load_assignment:
        cluster_name: server
        endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: ${hostname}, port_value: ${serverPort} } } } }] }]
`;
}
