import { after } from 'node:test';
import type { Handler } from './call.ts';
import type { Limits } from './limits.ts';
import { createGrpcUnaryServer, type GrpcUnaryServer } from './server.ts';
import { TestTime } from './time.testing.ts';

export interface TestServer {
  readonly server: GrpcUnaryServer;
  readonly time: TestTime;
  readonly violations: string[];
  readonly failures: unknown[];
}

/** Echoes at `/test.Echo/Say`, in time that a test moves; closed after the tests. */
export async function startServer(
  limits: Partial<Limits> = {},
  say: Handler = ({ message }) => message,
): Promise<TestServer> {
  const time = new TestTime();
  const violations: string[] = [];
  const failures: unknown[] = [];
  const server = await createGrpcUnaryServer(
    {
      handlers: { '/test.Echo/Say': say },
      time,
      random: () => 0.5,
      onViolation: (reason) => violations.push(reason),
      onFailure: (error) => failures.push(error),
    },
    { host: '127.0.0.1', port: 0, limits },
  );
  after(async () => {
    const closed = server.close();
    time.advance(1_000_000);
    await closed;
  });
  return { server, time, violations, failures };
}
