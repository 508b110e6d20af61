import { openParts, type Parts } from '../parts/index.ts';
import type { EdgeProxy, Surroundings } from './port.ts';
import { sample } from './sample.ts';

function envoy(parts: Parts, name: string, file: string, gatewayPort: (around: Surroundings) => number): EdgeProxy {
  const port = { 'envoy.yaml': 9001, 'envoy-http.yaml': 8083 }[file];
  return {
    name,
    prepare: async () => (await openParts(['envoy'])).prepare('envoy'),
    start: (around) =>
      parts.envoy(({ hostname, listenerPort, adminPort }) => {
        const gateway = `address: ${hostname}, port_value: ${gatewayPort(around)}`;
        return sample(`envoy/${file}`, {
          'address: 127.0.0.1, port_value: 9901': `address: 0.0.0.0, port_value: ${adminPort}`,
          'port_value: 8080': `port_value: ${listenerPort}`,
          [`address: gateway-1, port_value: ${port}`]: gateway,
          [`address: gateway-2, port_value: ${port}`]: gateway,
          'port_value: 9464': `port_value: ${around.healthPort}`,
          'address: upstream, port_value: 8090': `address: ${hostname}, port_value: ${around.servicePort}`,
        });
      }),
  };
}

export const envoyProxies = (parts: Parts): readonly EdgeProxy[] => [
  envoy(parts, 'Envoy, gRPC', 'envoy.yaml', ({ extAuthzPort }) => extAuthzPort),
  envoy(parts, 'Envoy, HTTP', 'envoy-http.yaml', ({ forwardAuthPort }) => forwardAuthPort),
];
