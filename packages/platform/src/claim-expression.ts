/**
 * Expressions over the claims of a token, in CEL (https://cel.dev). Whoever configures a provider writes them, and they
 * run in a process that serves others as well. So what they can cost is bounded before they run: no regular expressions,
 * no names bound to values, few loops, and no loop that looks at more than its own element, so that time and memory
 * grow with the size of the token alone.
 * @module
 */
import { type ASTNode, Environment } from '@marcbachmann/cel-js';

/** The value is text, list, boolean, number or map as in CEL; undefined where it is null or an optional without value. */
export type ClaimExpression = (claims: Readonly<Record<string, unknown>>) => unknown;

export const claimExpressionLengthMax = 1000;
const loopsMax = 3;
/** Of a token, counted through all objects and lists. */
const itemsMax = 2000;

const environment = new Environment({
  homogeneousAggregateLiterals: false,
  enableOptionalTypes: true,
  limits: { maxAstNodes: 100, maxDepth: 20, maxListElements: 50, maxMapEntries: 20, maxCallArguments: 5 },
}).registerVariable('claims', 'map<string, dyn>');

const loops: ReadonlySet<string> = new Set(['all', 'exists', 'exists_one', 'filter', 'map']);
const functions: ReadonlySet<string> = new Set([
  ...['has', 'size', 'string', 'int', 'double', 'bool', 'contains', 'startsWith', 'endsWith', 'indexOf', 'lastIndexOf'],
  ...['substring', 'split', 'join', 'trim', 'lowerAscii', 'upperAscii', 'or', 'orValue', 'hasValue', 'value'],
]);

/** Says where an expression is not understood, by a character counted from 1, and never repeats it. */
export class ClaimExpressionError extends Error {
  constructor(what: string, position: number) {
    super(`${what.replaceAll('_', ' ')} at character ${position + 1}`);
    this.name = 'ClaimExpressionError';
  }
}

/** Throws ClaimExpressionError for what is no expression over `claims`, or may cost too much. */
export function compileClaimExpression(text: string): ClaimExpression {
  if (text.length > claimExpressionLengthMax) throw new ClaimExpressionError('too long', claimExpressionLengthMax);
  const program = parse(text);
  checkCost(program.ast, { isInLoop: false, budget: { loops: loopsMax } });
  const { valid, error } = program.check();
  if (!valid) throw new ClaimExpressionError(error?.code ?? 'not understood', error?.range?.start ?? 0);
  return (claims) => {
    countItems(claims, 0);
    return plain(program({ claims }));
  };
}

function parse(text: string) {
  try {
    return environment.parse(text);
  } catch (error) {
    const { code, range } = error as { code?: string; range?: { start: number } };
    throw new ClaimExpressionError(code ?? 'not understood', range?.start ?? 0);
  }
}

interface Place {
  readonly isInLoop: boolean;
  readonly budget: { loops: number };
}

function checkCost(node: ASTNode, place: Place): void {
  if (node.op === 'id') {
    if (place.isInLoop && node.args === 'claims') throw new ClaimExpressionError('claims in a loop', node.start);
  } else if (node.op === 'call' || node.op === 'rcall') {
    const [name] = node.args;
    const isLoop = node.op === 'rcall' && loops.has(name);
    if (!isLoop && !functions.has(name)) throw new ClaimExpressionError('function not available', node.start);
    if (isLoop && --place.budget.loops < 0) throw new ClaimExpressionError('too many loops', node.start);
    if (node.op === 'rcall') checkCost(node.args[1], place);
    checkAll(node.args.at(-1), isLoop ? { ...place, isInLoop: true } : place);
  } else {
    checkAll(node.args, place);
  }
}

function checkAll(part: unknown, place: Place): void {
  if (Array.isArray(part)) for (const item of part) checkAll(item, place);
  else if (typeof part === 'object' && part !== null && 'op' in part) checkCost(part as ASTNode, place);
}

function countItems(value: unknown, before: number): number {
  if (typeof value !== 'object' || value === null) return before;
  let count = before;
  for (const item of Object.values(value)) {
    count = countItems(item, count + 1);
    if (count > itemsMax) throw new RangeError(`claims of more than ${itemsMax} items`);
  }
  return count;
}

function plain(value: unknown): unknown {
  if (typeof value === 'object' && value !== null && 'hasValue' in value && 'value' in value) {
    const optional = value as { hasValue(): boolean; value(): unknown };
    return optional.hasValue() ? plain(optional.value()) : undefined;
  }
  return value ?? undefined;
}
