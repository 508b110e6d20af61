import type { EnvoyAddress } from '../parts/index.ts';

/** Envoy in front of the upstream, asking one gateway by ext_authz; one listener, as in deploy/envoy. */
export function envoyConfig(address: EnvoyAddress, ports: { extAuthz: number; upstream: number }): string {
  const cluster = (name: string, port: number, isHttp2: boolean) => `
    - name: ${name}
      type: STRICT_DNS
      connect_timeout: 0.5s
      ${
        isHttp2
          ? `typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: { http2_protocol_options: {} }`
          : ''
      }
      load_assignment:
        cluster_name: ${name}
        endpoints:
          - lb_endpoints:
              - endpoint: { address: { socket_address: { address: ${address.hostname}, port_value: ${port} } } }`;
  return `
admin: { address: { socket_address: { address: 0.0.0.0, port_value: ${address.adminPort} } } }
static_resources:
  listeners:
    - name: edge
      address: { socket_address: { address: 0.0.0.0, port_value: ${address.listenerPort} } }
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: edge
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes: [{ match: { prefix: / }, route: { cluster: upstream, timeout: 15s } }]
                http_filters:
                  - name: envoy.filters.http.ext_authz
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
                      transport_api_version: V3
                      failure_mode_allow: false
                      status_on_error: { code: ServiceUnavailable }
                      encode_raw_headers: true
                      grpc_service: { envoy_grpc: { cluster_name: gateway }, timeout: 2s }
                  - name: envoy.filters.http.router
                    typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:${cluster('gateway', ports.extAuthz, true)}${cluster('upstream', ports.upstream, false)}
`;
}
