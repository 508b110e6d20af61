import { AuditTally, type AuditTallyDeps, auditedIdentities, type ErrorCode } from '@token-gateway/platform';
import type { Decision } from './decision/decision.ts';

const source = '/token-gateway/gateway';
const type = 'tg.audit.decision.denied';

/** Counts for the audit what was not let in. What was let in is in the audit by its exchange. */
export class DecisionAudit {
  readonly #tally: AuditTally;
  /** Of refusals of nobody in particular: a flood is counted, and costs no more. */
  readonly #bare = { deny: new Map<ErrorCode, BareRecord>(), unavailable: new Map<ErrorCode, BareRecord>() };

  constructor(deps: AuditTallyDeps) {
    this.#tally = new AuditTally(deps);
  }

  note(decision: Decision): void {
    if (decision.outcome === 'allow') return;
    const { code, outcome } = decision;
    const known = this.#bare[outcome].get(code);
    const bare = known ?? bareRecord(code, outcome === 'unavailable');
    if (known === undefined) this.#bare[outcome].set(code, bare);
    const subjects = outcome === 'deny' ? decision.subjects : undefined;
    if (subjects === undefined) this.#tally.note(bare, bare);
    else this.#tally.note({ source, type, data: { ...auditedIdentities(subjects), ...bare.data } }, bare);
  }

  flush(): void {
    this.#tally.flush();
  }
}

type BareRecord = ReturnType<typeof bareRecord>;

function bareRecord(code: ErrorCode, isUndecided: boolean) {
  return { source, type, data: { code, isUndecided } } as const;
}
