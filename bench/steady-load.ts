/**
 * Steady load on warm credentials, in a process of its own so that it does not disturb what is measured beside it.
 *
 *     node bench/steady-load.ts ADDRESS[,ADDRESS...] RATE_PER_GATEWAY < credentials, one authorization value a line
 *
 * Runs until SIGTERM, then prints one line of JSON; ends as well when the process that started it is gone.
 */
import { text } from 'node:stream/consumers';
import { checkRequest, createExtAuthzClient } from './ext-authz-client.ts';

const [addresses = '', rate = '500'] = process.argv.slice(2);
const requests = (await text(process.stdin))
  .trim()
  .split('\n')
  .map((authorization) => checkRequest(authorization));
const clients = addresses.split(',').map(createExtAuthzClient);
const tickMs = 10;
const perTick = (Number(rate) * tickMs) / 1000;
const counts = { sent: 0, accepted: 0, refused: 0, failed: 0 };
/** By gRPC status: why requests got no answer. */
const errors: Record<string, number> = {};
let turn = 0;
let owed = 0;
let last = performance.now();

const timer = setInterval(() => {
  const now = performance.now();
  owed += ((now - last) / tickMs) * perTick;
  last = now;
  for (; owed >= 1; owed--) {
    turn += 1;
    const request = requests[turn % requests.length] ?? Buffer.alloc(0);
    for (const client of clients) {
      counts.sent += 1;
      client.check(request).then(
        (status) => (status === 0 ? counts.accepted++ : counts.refused++),
        ({ code = 'unknown' }: { code?: number | string }) => {
          counts.failed += 1;
          errors[code] = (errors[code] ?? 0) + 1;
        },
      );
    }
  }
}, tickMs);

process.once('disconnect', () => process.exit(1));
process.once('SIGTERM', () => {
  clearInterval(timer);
  process.stdout.write(`${JSON.stringify({ ...counts, errors })}\n`, () => process.exit(0));
});
