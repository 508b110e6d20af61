/** What a real Envoy tells of a request's URL, address and certificate, held against conditions. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { request } from 'node:https';
import { after, it } from 'node:test';
import { systemClock } from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { createCertificateAuthority } from '../../deploy/certificates.ts';
import type { CertificateSource } from '../../services/gateway/src/conditions/client-certificate.ts';
import type { Conditions } from '../../services/gateway/src/conditions/conditions.ts';
import { ConditionsChecker, defaultConditionsConfig } from '../../services/gateway/src/conditions/presentation.ts';
import { createProofHolder } from '../../services/gateway/src/conditions/proof.testing.ts';
import { defaultCredentialConfig, findCredential } from '../../services/gateway/src/decision/credential.ts';
import type { DecisionRequest } from '../../services/gateway/src/decision/decision.ts';
import type { RuledDecision } from '../../services/gateway/src/rules/rules.ts';
import { createExtAuthzServer } from '../../services/gateway/src/transports/ext-authz.ts';
import { type EnvoyAddress, partsSuite } from '../parts/index.ts';

const authority = await createCertificateAuthority('bound tokens', Date.now());

/** With its SHA-256 in base64url, and as Envoy writes it. */
async function issue(name: string) {
  const issued = await authority.issue(`spiffe://bound.tokens/${name}`, ['localhost']);
  const hex = new X509Certificate(issued.certificate).fingerprint256.replaceAll(':', '').toLowerCase();
  return {
    key: issued.privateKey,
    cert: issued.certificate,
    hex,
    sha256: Buffer.from(hex, 'hex').toString('base64url'),
  };
}

type Certificate = Awaited<ReturnType<typeof issue>>;

/** One listener with TLS that takes any client certificate, as RFC 8705 section 2.2 has it; certificates as in deploy/envoy. */
function envoyConfig(address: EnvoyAddress, server: Certificate, ports: { gateway: number; upstream: number }): string {
  const cluster = (name: string, port: number, more: object = {}) => ({
    name,
    type: 'STRICT_DNS',
    load_assignment: {
      cluster_name: name,
      endpoints: [
        {
          lb_endpoints: [
            { endpoint: { address: { socket_address: { address: address.hostname, port_value: port } } } },
          ],
        },
      ],
    },
    ...more,
  });
  const type = (name: string) => ({ '@type': `type.googleapis.com/envoy.extensions.${name}` });
  const http2 = {
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        ...type('upstreams.http.v3.HttpProtocolOptions'),
        explicit_http_config: { http2_protocol_options: {} },
      },
    },
  };
  const manager = {
    ...type('filters.network.http_connection_manager.v3.HttpConnectionManager'),
    stat_prefix: 'edge',
    use_remote_address: true,
    xff_num_trusted_hops: 1,
    forward_client_cert_details: 'SANITIZE_SET',
    set_current_client_cert_details: { cert: true },
    route_config: {
      virtual_hosts: [
        { name: 'all', domains: ['*'], routes: [{ match: { prefix: '/' }, route: { cluster: 'upstream' } }] },
      ],
    },
    http_filters: [
      {
        name: 'envoy.filters.http.ext_authz',
        typed_config: {
          ...type('filters.http.ext_authz.v3.ExtAuthz'),
          transport_api_version: 'V3',
          encode_raw_headers: true,
          include_peer_certificate: true,
          grpc_service: { envoy_grpc: { cluster_name: 'gateway' }, timeout: '5s' },
        },
      },
      { name: 'envoy.filters.http.router', typed_config: type('filters.http.router.v3.Router') },
    ],
  };
  const tls = {
    ...type('transport_sockets.tls.v3.DownstreamTlsContext'),
    common_tls_context: {
      tls_certificates: [
        { certificate_chain: { inline_string: server.cert }, private_key: { inline_string: server.key } },
      ],
      validation_context: { trust_chain_verification: 'ACCEPT_UNTRUSTED' },
    },
  };
  return JSON.stringify({
    admin: { address: { socket_address: { address: '0.0.0.0', port_value: address.adminPort } } },
    static_resources: {
      listeners: [
        {
          name: 'edge',
          address: { socket_address: { address: '0.0.0.0', port_value: address.listenerPort } },
          filter_chains: [
            {
              transport_socket: { name: 'envoy.transport_sockets.tls', typed_config: tls },
              filters: [{ name: 'envoy.filters.network.http_connection_manager', typed_config: manager }],
            },
          ],
        },
      ],
      clusters: [cluster('gateway', ports.gateway, http2), cluster('upstream', ports.upstream)],
    },
  });
}

await partsSuite('bound tokens', ['envoy'], (parts) => {
  it('are accepted through Envoy by their proof, certificate and address, and by nothing that a client only says', async () => {
    const [server, own, other] = [await issue('envoy'), await issue('own'), await issue('other')];
    const holder = await createProofHolder();
    const token = 'a.b.c';

    let conditions: Conditions = {};
    let source: CertificateSource = 'peer';
    let seen: DecisionRequest | undefined;
    function decide(asked: DecisionRequest): RuledDecision {
      seen = asked;
      const deps = { clock: systemClock, usedProofs: null };
      const config = { ...defaultConditionsConfig, clientCertificate: source };
      const checker = new ConditionsChecker(deps, config, Buffer.alloc(32, 1));
      const found = findCredential((name) => asked.header(name), defaultCredentialConfig);
      if ('refused' in found) return { outcome: 'deny', code: found.refused };
      const unmet = checker.present(asked, found).unmet(conditions, systemClock.now());
      return (
        unmet ?? {
          outcome: 'allow',
          token: 'internal',
          kind: 'jwt',
          headers: [['authorization', 'Bearer internal']],
        }
      );
    }
    const gateway = await createExtAuthzServer(
      { decide, ...createSilentTelemetry(), clock: systemClock, random: Math.random },
      { host: '0.0.0.0', port: 0, removeHeaders: [], grpcTransport: 'grpc-unary' },
    );
    after(() => gateway.close());
    const upstream = createServer((incoming, answer) => answer.end(JSON.stringify(incoming.headers)));
    after(() => upstream.close().closeAllConnections());
    upstream.listen(0, '0.0.0.0');
    await once(upstream, 'listening');
    const ports = { gateway: gateway.port, upstream: (upstream.address() as { port: number }).port };
    const envoy = await parts.envoy((address) => envoyConfig(address, server, ports));
    const url = envoy.url.replace('http:', 'https:');

    async function send(headers: Record<string, string>, client: Certificate | null = null) {
      const credentials = client === null ? {} : { key: client.key, cert: client.cert };
      const sent = request(`${url}/orders?page=1`, {
        headers,
        ...credentials,
        rejectUnauthorized: false,
        agent: false,
      });
      sent.end();
      const [response] = await once(sent, 'response');
      let body = '';
      for await (const chunk of response) body += String(chunk);
      return { status: Number(response.statusCode), body };
    }
    const bearer = { authorization: `Bearer ${token}` };
    const forged = { ...bearer, 'x-forwarded-client-cert': `Hash=${own.hex}` };

    for (source of ['peer', 'xfcc'] as const) {
      conditions = { x5t_s256: own.sha256 };
      assert.equal((await send(bearer, own)).status, 200, source);
      assert.equal((await send(bearer, other)).status, 401, source);
      assert.equal((await send(bearer)).status, 401, source);
      assert.equal((await send(forged)).status, 401, `${source}: a header of the client, without a certificate`);
      assert.equal(
        (await send(forged, other)).status,
        401,
        `${source}: a header of the client, with another certificate`,
      );
    }

    conditions = { jkt: holder.jkt };
    const prove = (claims = {}) => holder.prove({ token, nowMs: Date.now(), url: `${url}/orders` }, claims);
    const withProof = async (claims = {}) => ({ authorization: `DPoP ${token}`, dpop: await prove(claims) });
    const accepted = await send(await withProof());
    assert.equal(accepted.status, 200);
    const passedOn = JSON.parse(accepted.body) as Record<string, string>;
    assert.equal(passedOn['authorization'], 'Bearer internal');
    assert.equal(passedOn['dpop'], undefined);
    assert.equal((await send(await withProof({ htu: `${url}/other` }))).status, 401);
    assert.equal((await send(await withProof({ htu: `${envoy.url}/orders` }))).status, 401, 'http instead of https');
    assert.equal((await send({ ...(await withProof()), authorization: `Bearer ${token}` })).status, 401);

    const address = seen?.sourceAddress ?? '';
    conditions = { cidrs: [`${address}/${address.includes(':') ? 128 : 32}`] };
    assert.equal((await send(bearer)).status, 200);
    // Whoever writes this header would choose an address; Envoy's is that of the connection, whatever proxies it trusts.
    assert.equal((await send({ ...bearer, 'x-forwarded-for': '192.0.2.7' })).status, 200);
    conditions = { cidrs: ['192.0.2.0/24'] };
    assert.equal((await send({ ...bearer, 'x-forwarded-for': '192.0.2.7' })).status, 403);
    await envoy.stop();
  });
});
