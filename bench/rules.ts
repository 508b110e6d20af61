/**
 * What rules add to a hit. Two gateways, with rules and without, differ by more than that where a machine is not quiet, as two
 * without do. So what is the same in both is left out: in one process, by turns of a few milliseconds, requests are read and
 * decided with rules and without; beside it, what a whole hit costs a gateway.
 */

import { parseRules } from '../services/gateway/src/rules/file.ts';
import { createDecideByRules, noRules, type RuleSet } from '../services/gateway/src/rules/rules.ts';
import { plainNames } from '../services/gateway/src/transports/check-request.testing.ts';
import { readCheckRequest } from '../services/gateway/src/transports/check-request.ts';
import { grantedAnswer } from './decision.ts';
import { checkRequest, tokenOf } from './ext-authz-client.ts';
import { cpuOfEach, pin, startCallers, startGateway } from './gateway-process.ts';
import { numberOf } from './options.ts';
import { rulesCount, rulesText } from './rules-file.ts';
import { formatTable, summarize } from './statistics.ts';
import { TransportLoad } from './transport-load.ts';

const callsInTurn = 5000;
const turnsForCompilers = 100;

export async function benchmarkRules(args: readonly string[]): Promise<Record<string, unknown>> {
  const turns = numberOf(args, 'turns', 1000);
  const rounds = numberOf(args, 'rounds', 9);
  await using stack = new AsyncDisposableStack();
  const { system, userId } = await startCallers(stack);
  const { key } = await system.admin.createKey(userId);
  const request = checkRequest(`Token ${key}`);
  const gateway = await startGateway(system, stack, 'grpc-unary');
  const answer = await grantedAnswer(gateway.port, request);
  const load = await TransportLoad.open(gateway.port, [request], answer);
  stack.defer(() => load.close());
  for (const each of [process, ...system.processes]) await pin(each.pid, 0);
  const hitMicros: number[] = [];
  for (let round = 0; round <= rounds; round += 1) {
    const micros = await cpuOfEach(gateway.pid, () => load.run(32, 1000));
    if (round > 0) hitMicros.push(micros);
  }

  const token = tokenOf(answer);
  const turnWith = {
    without: turnOf(noRules, request, token),
    within: turnOf(parseRules(rulesText()), request, token),
  };
  const micros = { without: [] as number[], within: [] as number[] };
  for (let turn = -turnsForCompilers; turn < turns; turn += 1) {
    // Each is first as often as the other.
    const order = turn % 2 === 0 ? (['without', 'within'] as const) : (['within', 'without'] as const);
    for (const which of order) {
      const took = turnWith[which]();
      if (turn >= 0) micros[which].push(took);
    }
  }
  const more = summarize(micros.within.map((each, turn) => each - (micros.without[turn] ?? Number.NaN)));
  const hit = summarize(hitMicros);
  const rows = {
    'a hit of a gateway': hit,
    'read and decided': summarize(micros.without),
    [`${rulesCount} rules`]: summarize(micros.within),
  };
  console.log(
    formatTable([
      ['CPU, us', 'p50', 'p99', 'n'],
      ...Object.entries(rows).map(([name, { p50, p99, count }]) => [name, p50.toFixed(2), p99.toFixed(2), `${count}`]),
    ]),
  );
  const shares = [more.p50 / hit.p50, more.p50 / hit.min].map((share) => `${(100 * share).toFixed(1)}%`);
  console.log(
    `rules: ${more.p50.toFixed(2)} us more (median of ${turns} turns beside each other), ${shares[0]} of a hit, ${shares[1]} of one in the quietest second`,
  );
  return { rows, more, hit };
}

/** A turn of requests that are all granted; returns the microseconds of each. */
function turnOf(rules: RuleSet, request: Buffer, token: string): () => number {
  const allowed = { outcome: 'allow', kind: 'api-key', token } as const;
  const decide = createDecideByRules({
    decide: () => allowed,
    decideAnonymously: () => allowed,
    rules: () => rules,
    onRuled: () => undefined,
  });
  return () => {
    const begin = performance.now();
    for (let call = 0; call < callsInTurn; call += 1) {
      const read = readCheckRequest(request, plainNames);
      const decision = read === null ? null : decide(read);
      if (decision === null || decision instanceof Promise || decision.outcome !== 'allow')
        throw new Error('a request was not let in');
    }
    return ((performance.now() - begin) * 1000) / callsInTurn;
  };
}
