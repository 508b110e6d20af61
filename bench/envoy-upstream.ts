/** What is behind Envoy: takes internal tokens alone, and judges each request by what its path says of the caller. */
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createRemoteJWKSet, type JWTPayload, jwtVerify } from 'jose';

/** Whom a path is for. */
export interface Caller {
  /** False: nobody may be let in. */
  readonly isAllowed: boolean;
  /** As the internal token says; null until the first request told. */
  user: string | null;
  /** Until when it may be let in, by `performance.now()`. */
  untilMs: number;
}

/** What no request may have in a header, whatever it was sent with. */
export const forged = 'forged';

export class JudgingUpstream implements AsyncDisposable {
  readonly #callers: ReadonlyMap<string, Caller>;
  readonly #tokens = new Map<string, Promise<JWTPayload | null>>();
  readonly #verify: (token: string) => Promise<JWTPayload | null>;
  readonly #server = createServer({ keepAliveTimeout: 600_000 }, (request, response) => {
    const path = request.url ?? '';
    void this.#judge(path, request.headers).then((wrong) => {
      if (wrong !== null) this.wrong.set(wrong, (this.wrong.get(wrong) ?? 0) + 1);
      response.writeHead(wrong === null ? 200 : 500).end(wrong ?? `<${path}>`);
    });
  });
  /** Requests that should not have come, or not like that, by what was wrong. */
  readonly wrong = new Map<string, number>();

  constructor(authServerUrl: string, callers: ReadonlyMap<string, Caller>) {
    this.#callers = callers;
    const keys = createRemoteJWKSet(new URL('/.well-known/jwks.json', authServerUrl));
    const expected = { issuer: authServerUrl, audience: 'internal', typ: 'at+jwt', requiredClaims: ['exp', 'sub'] };
    this.#verify = (token) =>
      jwtVerify(token, keys, expected).then(
        ({ payload }) => payload,
        () => null,
      );
  }

  async listen(): Promise<number> {
    this.#server.listen(0, '0.0.0.0');
    await once(this.#server, 'listening');
    return (this.#server.address() as AddressInfo).port;
  }

  async #judge(path: string, headers: IncomingHttpHeaders): Promise<string | null> {
    const arrivedMs = performance.now();
    const caller = this.#callers.get(path);
    if (caller === undefined) return 'a path that nobody asks for';
    if (!caller.isAllowed) return 'let in without a right to be';
    if (arrivedMs > caller.untilMs) return 'let in after it was revoked';
    if (Object.values(headers).some((value) => String(value).includes(forged))) return 'a forged header';
    const token = await this.#tokenOf(headers.authorization ?? '');
    if (token?.sub === undefined || token.exp === undefined) return 'no valid internal token';
    if (token.exp * 1000 < Date.now()) return 'an expired internal token';
    caller.user ??= token.sub;
    return token.sub === caller.user ? null : 'the token of somebody else';
  }

  /** What was verified once is remembered, as long as the run lasts. */
  #tokenOf(authorization: string): Promise<JWTPayload | null> {
    let token = this.#tokens.get(authorization);
    if (token === undefined) {
      token = this.#verify(authorization.replace(/^Bearer /, ''));
      this.#tokens.set(authorization, token);
    }
    return token;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
