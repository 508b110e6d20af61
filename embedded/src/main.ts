import { runService } from '@token-gateway/platform';
import { startEmbedded } from './embedded.ts';
import { welcome } from './welcome.ts';

// What there is to read here is the text below, not the log.
process.env['TG_LOG_LEVEL'] ??= 'warn';
// There is no other replica to go to.
process.env['TG_DRAIN_MS'] ??= '0';

await runService('embedded', async ({ env, ...context }) => {
  const embedded = await startEmbedded(env, context);
  process.stdout.write(`${welcome(embedded)}\nready in ${Math.round(performance.now())} ms; Ctrl-C ends it\n`);
});
