import { AuditTally, type AuditTallyDeps, auditedIdentities, type ErrorCode } from '@token-gateway/platform';
import type { Decision } from './decision/decision.ts';

const source = '/token-gateway/gateway';
const type = 'tg.audit.decision.denied';

/** Counts for the audit what was not let in. What was let in is in the audit by its exchange. */
export class DecisionAudit {
  readonly #tally: AuditTally;
  /** Of refusals of nobody in particular, by their code, which has one outcome: a flood is counted, and costs no more. */
  readonly #bare = new Map<ErrorCode, ReturnType<typeof bareRecord>>();

  constructor(deps: AuditTallyDeps) {
    this.#tally = new AuditTally(deps);
  }

  note(decision: Decision): void {
    if (decision.outcome === 'allow') return;
    const { code, outcome } = decision;
    const bare = this.#bare.get(code) ?? bareRecord(code, outcome === 'unavailable');
    this.#bare.set(code, bare);
    const subjects = outcome === 'deny' ? decision.subjects : undefined;
    if (subjects === undefined) this.#tally.note(bare, bare);
    else this.#tally.note({ source, type, data: { ...auditedIdentities(subjects), ...bare.data } }, bare);
  }

  flush(): void {
    this.#tally.flush();
  }
}

function bareRecord(code: ErrorCode, isUndecided: boolean) {
  return { source, type, data: { code, isUndecided } } as const;
}
