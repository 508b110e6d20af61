import { isObject } from '@token-gateway/platform';
import { ScimError } from './scim-error.ts';

/** `attribute eq value`; the attribute as it was written. */
export interface Comparison {
  readonly attribute: string;
  readonly value: string | boolean | number | null;
}

const textLengthMax = 2000;
const comparison = /\s*\(?\s*([A-Za-z][\w$.:-]*)\s+(\w+)\s+("(?:[^"\\]|\\.)*"|[\w.+-]+)\s*\)?\s*/y;
const conjunction = /and\s+/iy;

/**
 * A filter (RFC 7644 section 3.4.2.2) as directories send it to find one resource: comparisons for equality, all of which
 * have to hold. Every other operator is refused, never taken for another.
 */
export function parseFilter(text: string): readonly Comparison[] {
  if (text.length > textLengthMax) throw new ScimError('invalidFilter', 'The filter is too long.');
  const comparisons: Comparison[] = [];
  let place = 0;
  for (;;) {
    comparison.lastIndex = place;
    const match = comparison.exec(text);
    if (match === null) throw new ScimError('invalidFilter', 'The filter cannot be read.');
    const [, attribute = '', operator = '', value = ''] = match;
    if (operator.toLowerCase() !== 'eq') throw new ScimError('invalidFilter', 'Only eq and and are supported.');
    comparisons.push({ attribute, value: literalOf(value) });
    place = comparison.lastIndex;
    if (place === text.length) return comparisons;
    conjunction.lastIndex = place;
    if (!conjunction.test(text)) throw new ScimError('invalidFilter', 'Only eq and and are supported.');
    place = conjunction.lastIndex;
  }
}

function literalOf(text: string): Comparison['value'] {
  try {
    const value: unknown = JSON.parse(/^(?:true|false|null)$/i.test(text) ? text.toLowerCase() : text);
    // What no row can hold.
    if (typeof value === 'string' && (!value.isWellFormed() || value.includes('\0'))) throw new SyntaxError('no text');
    return value as Comparison['value'];
  } catch {
    throw new ScimError('invalidFilter', 'The filter has a value that is not JSON.');
  }
}

/** Whether a complex value is what a filter asks for; text in any case, and booleans also as text. */
export function isMatch(value: unknown, comparisons: readonly Comparison[]): boolean {
  return comparisons.every((wanted) => {
    const found = memberOf(value, wanted.attribute);
    return typeof found !== 'object' && String(found).toLowerCase() === `${wanted.value}`.toLowerCase();
  });
}

/** A member of an object by its name in any case (RFC 7643 section 2.1). */
export function memberOf(value: unknown, name: string): unknown {
  return isObject(value) ? value[nameIn(value, name)] : undefined;
}

/** The name by which an object has a member, or the name itself. */
export function nameIn(object: object, name: string): string {
  const lower = name.toLowerCase();
  return Object.keys(object).find((key) => key.toLowerCase() === lower) ?? name;
}
