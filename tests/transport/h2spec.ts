/** `npm run h2spec`: prints what h2spec says of `packages/grpc-unary`. */
import { echoServers } from '../../packages/grpc-unary/src/echo.testing.ts';
import { h2spec } from './programs.ts';

const server = await echoServers['grpc-unary']?.({});
for (const isStrict of [false, true]) {
  const { isContent, output } = await h2spec(server?.port ?? 0, isStrict);
  console.log(output);
  if (!isContent) process.exitCode = 1;
}
await server?.close();
