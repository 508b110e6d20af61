/**
 * Who may act for the subject by what its token says (RFC 8693 section 4.4). It takes away only: a client needs its
 * registration as well, and a claim that is not understood names nobody.
 * @module
 */
import { clientSubject } from './internal-token.ts';

export type MayAct = Readonly<Partial<Record<MayActMember, string>>>;

const members = ['sub', 'iss', 'client_id'] as const;
type MayActMember = (typeof members)[number];

const nobody: MayAct = {};
const textLengthMax = 512;

/** Undefined = the token says nothing of it. */
export function readMayAct(claims: Readonly<Record<string, unknown>>): MayAct | undefined {
  if (!Object.hasOwn(claims, 'may_act')) return undefined;
  const { may_act: given } = claims;
  if (typeof given !== 'object' || given === null || Array.isArray(given)) return nobody;
  const isUnderstood = Object.entries(given).every(
    ([name, value]) => isMember(name) && typeof value === 'string' && value.length <= textLengthMax,
  );
  return isUnderstood ? { ...given } : nobody;
}

/** Whether it names this client: by the `sub` of its own tokens, by its id, or by both; all that is said has to fit. */
export function namesClient(mayAct: MayAct, { issuer, clientId }: { issuer: string; clientId: string }): boolean {
  const client = { sub: clientSubject(clientId), iss: issuer, client_id: clientId };
  if (mayAct.sub === undefined && mayAct.client_id === undefined) return false;
  return members.every((name) => mayAct[name] === undefined || mayAct[name] === client[name]);
}

function isMember(name: string): name is MayActMember {
  return (members as readonly string[]).includes(name);
}
