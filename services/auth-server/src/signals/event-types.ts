/** What the events of OpenID CAEP 1.0, RISC 1.0 and their drafts take away here. */

/** Of the session where the event names one, else of the account; or of the account whatever is named. */
export type EventEffect = 'endSession' | 'endIssued' | 'disable' | 'enable' | 'purge';

const caep = 'https://schemas.openid.net/secevent/caep/event-type/';
const risc = 'https://schemas.openid.net/secevent/risc/event-type/';

/** Null: it takes nothing away. What is not here is not known, and does nothing either. */
const effects: ReadonlyMap<string, EventEffect | null> = new Map<string, EventEffect | null>([
  [`${caep}session-revoked`, 'endSession'],
  [`${caep}credential-change`, 'endIssued'],
  // What a token says of its user is as old as the token: the next one has it right.
  [`${caep}token-claims-change`, 'endIssued'],
  [`${caep}assurance-level-change`, null],
  [`${caep}device-compliance-change`, null],
  [`${caep}risk-level-change`, null],
  [`${caep}session-established`, null],
  [`${caep}session-presented`, null],
  [`${risc}account-disabled`, 'disable'],
  [`${risc}account-enabled`, 'enable'],
  [`${risc}account-purged`, 'purge'],
  [`${risc}account-credential-change-required`, 'endIssued'],
  [`${risc}credential-compromise`, 'endIssued'],
  [`${risc}sessions-revoked`, 'endIssued'],
  ['https://schemas.openid.net/secevent/oauth/event-type/tokens-revoked', 'endIssued'],
  [`${risc}identifier-changed`, null],
  [`${risc}identifier-recycled`, null],
  [`${risc}recovery-activated`, null],
  [`${risc}recovery-information-changed`, null],
  [`${risc}opt-in`, null],
  [`${risc}opt-out-initiated`, null],
  [`${risc}opt-out-cancelled`, null],
  [`${risc}opt-out-effective`, null],
  ['https://schemas.openid.net/secevent/ssf/event-type/verification', null],
  ['https://schemas.openid.net/secevent/ssf/event-type/stream-updated', null],
  ['https://schemas.openid.net/secevent/sse/event-type/verification', null],
  [`${risc}verification`, null],
]);

/** The name of an event for the change log and the audit, and what it takes away. */
export function effectNameOf(
  type: string,
  event: Readonly<Record<string, unknown>>,
): { readonly name: string; readonly effect: EventEffect | null } {
  const effect = effects.get(type);
  if (effect === undefined) return { name: 'unknown', effect: null };
  const name = type.slice(type.lastIndexOf('/') + 1);
  // A further credential takes nothing from those that were there.
  if (name === 'credential-change' && event['change_type'] === 'create') return { name, effect: null };
  return { name, effect };
}
