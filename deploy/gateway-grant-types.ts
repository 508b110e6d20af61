/** What a gateway asks for: of a token, of an API key, and, for anonymous paths, of nobody. */
export const gatewayGrantTypes: readonly string[] = [
  'urn:ietf:params:oauth:grant-type:token-exchange',
  'urn:token-gateway:params:oauth:grant-type:api-key',
  'client_credentials',
];
