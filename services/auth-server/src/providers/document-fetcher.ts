/**
 * Fetches the JSON documents of identity providers. Their addresses come from configuration that tenants make, so
 * nothing they name may lead inside: https only, no redirect, public addresses only, decided at the moment of
 * connecting, so that no name can point elsewhere afterwards.
 * @module
 */
import { lookup as dnsLookup, type LookupAddress, type LookupOptions } from 'node:dns';
import http from 'node:http';
import https from 'node:https';
import { BlockList, isIP } from 'node:net';
import { ServiceError } from '@token-gateway/platform';

/** What is asked of an address beside its document. */
export interface Question {
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** The same for what is answered to a document that is posted; of JSON, unless the headers say otherwise. */
export type PostDocument = (url: string, question: Question) => Promise<unknown>;

/** The parsed JSON of a document. Rejects with `provider_unavailable`, whatever went wrong. */
export type FetchDocument = (url: string) => Promise<unknown>;

interface Config {
  readonly timeoutMs: number;
  readonly bytesMax: number;
  /** Allows http and private addresses: for tests and demonstrations. */
  readonly allowInsecure: boolean;
  /** Default: JSON.parse. */
  readonly parse?: (text: string) => unknown;
}

const privateAddresses = new BlockList();
for (const [network, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
] as const) {
  privateAddresses.addSubnet(network, prefix, 'ipv4');
}
const globalUnicast = new BlockList();
globalUnicast.addSubnet('2000::', 3, 'ipv6');
for (const [network, prefix] of [
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
] as const) {
  privateAddresses.addSubnet(network, prefix, 'ipv6');
}

export function isPublicAddress(address: string): boolean {
  switch (isIP(address)) {
    case 4:
      return !privateAddresses.check(address, 'ipv4');
    case 6:
      return globalUnicast.check(address, 'ipv6') && !privateAddresses.check(address, 'ipv6');
    default:
      return false;
  }
}

type LookupCallback = (error: NodeJS.ErrnoException | null, address: string | LookupAddress[], family?: number) => void;

/** Resolves a name to its public addresses only. */
function lookupPublic(hostname: string, options: LookupOptions, callback: LookupCallback): void {
  dnsLookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error !== null) return callback(error, []);
    const [first] = addresses;
    if (first === undefined || !addresses.every(({ address }) => isPublicAddress(address))) {
      return callback(new Error(`${hostname} has an address that is not public`), []);
    }
    if (options.all === true) return callback(null, addresses);
    return callback(null, first.address, first.family);
  });
}

export function createDocumentFetcher(config: Config): FetchDocument {
  const fetchDocument = createRequester(config);
  return (url) => fetchDocument(url, null);
}

export function createDocumentPoster(config: Omit<Config, 'timeoutMs'>): PostDocument {
  // Each question has its own time.
  return createRequester({ ...config, timeoutMs: 0 });
}

function createRequester(config: Config): (url: string, question: Question | null) => Promise<unknown> {
  function request(
    url: URL,
    question: Question | null,
    onResponse: (response: http.IncomingMessage) => void,
  ): http.ClientRequest {
    const options = {
      ...(question === null
        ? {
            method: 'GET',
            headers: { accept: 'application/json, application/jwk-set+json' },
            signal: AbortSignal.timeout(config.timeoutMs),
          }
        : {
            method: 'POST',
            headers: { accept: 'application/json', 'content-type': 'application/json', ...question.headers },
            signal: AbortSignal.any([
              AbortSignal.timeout(question.timeoutMs),
              ...(question.signal === undefined ? [] : [question.signal]),
            ]),
          }),
      agent: false,
      ...(config.allowInsecure ? {} : { lookup: lookupPublic }),
    };
    const started =
      url.protocol === 'https:' ? https.request(url, options, onResponse) : http.request(url, options, onResponse);
    return started.end(question?.body);
  }

  function check(url: URL): void {
    if (config.allowInsecure && url.protocol === 'http:') return;
    if (url.protocol !== 'https:') throw new Error('not https');
    const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
    if (!config.allowInsecure && isIP(host) !== 0 && !isPublicAddress(host)) throw new Error('not a public address');
  }

  async function fetchDocument(text: string, question: Question | null): Promise<unknown> {
    const url = new URL(text);
    check(url);
    const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>();
    request(url, question, resolve).on('error', reject);
    const response = await promise;
    try {
      if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}`);
      const chunks: Buffer[] = [];
      let bytes = 0;
      for await (const chunk of response) {
        bytes += chunk.length;
        if (bytes > config.bytesMax) throw new Error(`more than ${config.bytesMax} bytes`);
        chunks.push(chunk);
      }
      return (config.parse ?? JSON.parse)(Buffer.concat(chunks).toString('utf8'));
    } finally {
      response.destroy();
    }
  }

  return (url, question) =>
    fetchDocument(url, question).catch((cause: unknown) => {
      throw new ServiceError('provider_unavailable', { detail: `document ${url} could not be fetched`, cause });
    });
}
