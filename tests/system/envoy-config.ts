import type { EnvoyAddress } from '../parts/index.ts';

/** A gateway as Envoy sees it. */
export interface GatewayPorts {
  readonly extAuthz: number;
  readonly metrics: number;
}

/**
 * Envoy in front of the upstream, asking gateways by ext_authz; one listener, as in deploy/envoy.
 * With `saysWhatWasAsked` each answer, also one of its own, has the path of its request in `x-asked`.
 */
export function envoyConfig(
  address: EnvoyAddress,
  ports: { gateways: readonly GatewayPorts[]; upstream: number },
  { saysWhatWasAsked = false } = {},
): string {
  const endpoint = (port: number, more = '') => `
              - endpoint:
                  address: { socket_address: { address: ${address.hostname}, port_value: ${port} } }${more}`;
  const cluster = (name: string, endpoints: readonly string[], more: string) => `
    - name: ${name}
      type: STRICT_DNS
      connect_timeout: 0.5s${more}
      load_assignment:
        cluster_name: ${name}
        endpoints:
          - lb_endpoints:${endpoints.join('')}`;
  const gateways = cluster(
    'gateways',
    ports.gateways.map(({ extAuthz, metrics }) =>
      endpoint(
        extAuthz,
        `
                  health_check_config: { port_value: ${metrics} }`,
      ),
    ),
    `
      lb_policy: ROUND_ROBIN
      circuit_breakers: { thresholds: [{ max_connections: 10000, max_pending_requests: 10000, max_requests: 10000, max_retries: 10000 }] }
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: { http2_protocol_options: {} }
      # While there is no ready gateway, any of them: it decides, or nothing passes.
      common_lb_config: { healthy_panic_threshold: { value: 1 } }
      health_checks:
        - http_health_check: { path: /readyz }
          timeout: 1s
          interval: 0.2s
          no_traffic_interval: 0.2s
          unhealthy_threshold: 2
          healthy_threshold: 1`,
  );
  const asked = saysWhatWasAsked
    ? `
                  response_headers_to_add: [{ header: { key: x-asked, value: "%REQ(:PATH)%" } }]`
    : '';
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
                route_config:${asked}
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: { prefix: / }
                          route:
                            cluster: upstream
                            timeout: 15s
                            retry_policy: { retry_on: "connect-failure,refused-stream,reset-before-request", num_retries: 1 }
                http_filters:
                  - name: envoy.filters.http.ext_authz
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
                      transport_api_version: V3
                      failure_mode_allow: false
                      status_on_error: { code: ServiceUnavailable }
                      encode_raw_headers: true
                      grpc_service:
                        envoy_grpc: { cluster_name: gateways }
                        timeout: 2s
                        retry_policy:
                          retry_on: "connect-failure,refused-stream,reset"
                          num_retries: 1
                          retry_host_predicate:
                            - name: envoy.retry_host_predicates.previous_hosts
                              typed_config: { "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate }
                          host_selection_retry_max_attempts: 5
                  - name: envoy.filters.http.router
                    typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:${gateways}${cluster('upstream', [endpoint(ports.upstream)], '')}
`;
}
