/** How deep objects and arrays may lie in one another. No token in use comes near it. */
const depthMax = 32;

/** Of a text that is JSON: whole strings, with the colon where they name a member, and what opens or closes. */
const tokens = /"(?:[^"\\]|\\.)*"(\s*:)?|[[{}\]]/gs;

/**
 * Parses JSON that somebody else wrote and a signature may cover. Throws for what is not JSON (RFC 8259), and for what two
 * readers may understand differently or not at all: a member named twice (JSON.parse silently takes the last; RFC 7515
 * section 4 and RFC 7519 section 4 allow to refuse it), half of a surrogate pair, and depth without end.
 */
export function parseStrictJson(text: string): unknown {
  const value: unknown = JSON.parse(text);
  let depth = 0;
  let members = 0;
  for (const [token, colon] of text.matchAll(tokens)) {
    if (colon !== undefined) members += 1;
    else if (token === '{' || token === '[') depth += 1;
    else if (token === '}' || token === ']') depth -= 1;
    if (depth > depthMax) throw new SyntaxError(`JSON deeper than ${depthMax}`);
  }
  const kept = countMembers(value);
  if (kept !== members) throw new SyntaxError('a member of a JSON object is named twice');
  return value;
}

/** JSON of that kind: neither null nor a list. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The members of all objects in a value. Throws for text that no UTF-8 can hold. */
function countMembers(value: unknown): number {
  if (typeof value === 'string' && !value.isWellFormed()) throw new SyntaxError('half of a surrogate pair');
  if (typeof value !== 'object' || value === null) return 0;
  if (Array.isArray(value)) return value.reduce<number>((sum, item) => sum + countMembers(item), 0);
  return Object.entries(value).reduce((sum, [name, item]) => {
    return sum + 1 + countMembers(name) + countMembers(item);
  }, 0);
}
