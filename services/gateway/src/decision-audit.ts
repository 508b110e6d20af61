import { AuditTally, type AuditTallyDeps, auditedIdentities } from '@token-gateway/platform';
import type { Decision } from './decision/decision.ts';

const source = '/token-gateway/gateway';
const type = 'tg.audit.decision.denied';

/** Counts for the audit what was not let in. What was let in is in the audit by its exchange. */
export class DecisionAudit {
  readonly #tally: AuditTally;

  constructor(deps: AuditTallyDeps) {
    this.#tally = new AuditTally(deps);
  }

  note(decision: Decision): void {
    if (decision.outcome === 'allow') return;
    const data = { code: decision.code, isUndecided: decision.outcome === 'unavailable' };
    const identities = decision.outcome === 'deny' ? auditedIdentities(decision.subjects) : {};
    this.#tally.note({ source, type, data: { ...identities, ...data } }, { source, type, data });
  }

  flush(): void {
    this.#tally.flush();
  }
}
