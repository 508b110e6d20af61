/**
 * What a schema no longer keeps of what an earlier one promised. `input` is what callers send: what was accepted has to be
 * accepted. `output` is what they read: what was there has to be there, of the same type.
 * @module
 */
type Direction = 'input' | 'output';
type Json = Readonly<Record<string, unknown>>;

export interface CompareOptions {
  readonly direction: Direction;
  /** For readers that refuse what they do not know: a new member is one as well. */
  readonly isClosed?: boolean;
}

interface Side {
  readonly root: Json;
  readonly schema: Json;
}

/** By which a caller is told apart from one that was accepted: [keyword, whether a larger value accepts more]. */
const limits: readonly (readonly [string, boolean])[] = [
  ['minLength', false],
  ['minItems', false],
  ['minProperties', false],
  ['minimum', false],
  ['exclusiveMinimum', false],
  ['maxLength', true],
  ['maxItems', true],
  ['maxProperties', true],
  ['maximum', true],
];

/** Each break as `<path>: <what>`. */
export function compareSchemas(before: Json, after: Json, options: CompareOptions): string[] {
  return compare({ root: before, schema: before }, { root: after, schema: after }, '', options);
}

function compare(given: Side, now: Side, path: string, options: CompareOptions): string[] {
  const before = resolve(given);
  const after = resolve(now);
  const [olds, news] = [variantsOf(before), variantsOf(after)];
  if (olds.length === 1 && news.length === 1) return compareOne(before, after, path, options);
  const breaksOf = (old: Side): string[] => best(news.map((each) => compare(old, each, path, options)));
  const lost = olds.flatMap(breaksOf);
  if (options.direction === 'input') return lost;
  // A new kind of event is told by its type, and left alone by whoever does not know it.
  const isNew = (each: Side): boolean => best(olds.map((old) => compare(old, each, path, options))).length > 0;
  const added = news.filter((each) => isNew(each) && literalOf(membersOf(each)['type']) === undefined);
  return [...lost, ...added.map(() => `${path}: may be something else as well`)];
}

function compareOne(before: Side, after: Side, path: string, options: CompareOptions): string[] {
  const isInput = options.direction === 'input';
  const retyped = retype(before.schema, after.schema, isInput);
  if (retyped !== null) return [`${path || '/'}: ${retyped}`];
  const breaks: string[] = [];
  const [olds, news] = [membersOf(before), membersOf(after)];
  const [oldRequired, newRequired] = [requiredOf(before), requiredOf(after)];
  for (const [name, schema] of Object.entries(olds)) {
    const member = news[name];
    if (member === undefined) breaks.push(`${path}/${name}: removed`);
    else {
      const [old, now] = [
        { ...before, schema },
        { ...after, schema: member },
      ];
      breaks.push(...compare(old, now, `${path}/${name}`, options));
      if (!isInput && oldRequired.has(name) && !newRequired.has(name)) breaks.push(`${path}/${name}: may be absent`);
    }
  }
  for (const name of isInput ? newRequired : []) {
    if (!oldRequired.has(name)) breaks.push(`${path}/${name}: made required`);
  }
  for (const name of options.isClosed === true ? Object.keys(news) : []) {
    if (olds[name] === undefined && before.schema['additionalProperties'] === false) {
      breaks.push(`${path}/${name}: added, where unknown members do not occur`);
    }
  }
  for (const keyword of ['items', 'additionalProperties']) {
    const [old, now] = [before.schema[keyword], after.schema[keyword]];
    if (isObject(old) && isObject(now)) {
      breaks.push(...compare({ ...before, schema: old }, { ...after, schema: now }, `${path}/${keyword}`, options));
    } else if (isInput && old !== false && now === false) breaks.push(`${path}: takes no further members`);
  }
  return breaks;
}

/** What became of type, values and limits; null when what was promised is kept. */
function retype(before: Json, after: Json, isInput: boolean): string | null {
  const [old, now] = [typesOf(before), typesOf(after)];
  const widens = (wide: string[], narrow: string[]): boolean =>
    wide.length === 0 || (narrow.length > 0 && narrow.every((type) => wide.includes(type) || isWider(wide, type)));
  if (!(isInput ? widens(now, old) : widens(old, now))) return `retyped from ${old} to ${now}`;
  const [oldValues, newValues] = [valuesOf(before), valuesOf(after)];
  if (newValues !== null) {
    if (oldValues === null) return isInput ? 'takes only some values' : null;
    const missing = oldValues.filter((value) => !newValues.includes(value));
    if (missing.length > 0) return `no longer ${missing.join(', ')}`;
  }
  if (!isInput) return null;
  for (const keyword of ['pattern', 'format']) {
    if (after[keyword] !== undefined && after[keyword] !== before[keyword]) return `narrowed by another ${keyword}`;
  }
  for (const [keyword, isLargerWider] of limits) {
    const [oldLimit, newLimit] = [before[keyword], after[keyword]];
    if (typeof newLimit !== 'number') continue;
    const isKept = typeof oldLimit === 'number' && (isLargerWider ? newLimit >= oldLimit : newLimit <= oldLimit);
    if (!isKept) return `narrowed by ${keyword} ${newLimit}`;
  }
  return null;
}

function isWider(wide: readonly string[], type: string): boolean {
  return type === 'integer' && wide.includes('number');
}

/** None stands for any. */
function typesOf(schema: Json): string[] {
  const { type } = schema;
  if (type !== undefined) return [type].flat().map(String);
  const values = valuesOf(schema);
  if (values === null) return isObject(schema['properties']) ? ['object'] : [];
  return [...new Set(values.map((value) => (value === null ? 'null' : typeof value)))];
}

function valuesOf({ const: literal, enum: values }: Json): unknown[] | null {
  if (literal !== undefined) return [literal];
  return Array.isArray(values) ? values : null;
}

function literalOf(schema: Json | undefined): unknown {
  return schema?.['const'];
}

function membersOf({ schema }: Side): Readonly<Record<string, Json>> {
  return isObject(schema['properties']) ? (schema['properties'] as Record<string, Json>) : {};
}

function requiredOf({ schema: { required } }: Side): ReadonlySet<string> {
  return new Set(Array.isArray(required) ? required : []);
}

function variantsOf(side: Side): Side[] {
  const variants = side.schema['anyOf'] ?? side.schema['oneOf'];
  if (!Array.isArray(variants)) return [side];
  return variants.map((schema: Json) => resolve({ ...side, schema }));
}

function resolve({ root, schema }: Side): Side {
  const { $ref: reference } = schema;
  if (typeof reference !== 'string' || !reference.startsWith('#/')) return { root, schema };
  let target: unknown = root;
  for (const segment of reference.slice(2).split('/')) target = isObject(target) ? target[segment] : undefined;
  if (!isObject(target)) throw new Error(`${reference} leads nowhere`);
  return resolve({ root, schema: target });
}

function best(candidates: readonly string[][]): string[] {
  return candidates.reduce((least, each) => (each.length < least.length ? each : least), candidates[0] ?? []);
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** An OpenAPI document: operations, their parameters, bodies and answers. */
export function compareOpenApi(before: Json, after: Json): string[] {
  const breaks: string[] = [];
  for (const [path, methods] of entriesOf(before['paths'])) {
    for (const [method, old] of entriesOf(methods)) {
      const name = `${method.toUpperCase()} ${path}`;
      const now = memberOf(memberOf(after['paths'], path), method);
      if (!isObject(now)) breaks.push(`${name}: removed`);
      else breaks.push(...compareOperation(old as Json, now).map((text) => `${name} ${text}`));
    }
  }
  return breaks;

  function compareOperation(old: Json, now: Json): string[] {
    return [...compareParameters(old, now), ...compareBody(old, now), ...compareAnswers(old, now)];
  }

  function at(path: string, old: unknown, now: unknown, direction: Direction): string[] {
    if (!isObject(old) || !isObject(now)) return isObject(old) ? [`${path}: removed`] : [];
    return compare({ root: before, schema: old }, { root: after, schema: now }, path, { direction });
  }

  function compareParameters(old: Json, now: Json): string[] {
    const parametersOf = ({ parameters }: Json): Json[] => (Array.isArray(parameters) ? parameters : []);
    const nameOf = (parameter: Json): string => `${parameter['in']} ${parameter['name']}`;
    const olds = new Map(parametersOf(old).map((each) => [nameOf(each), each]));
    const news = new Map(parametersOf(now).map((each) => [nameOf(each), each]));
    const kept = [...olds].flatMap(([name, each]) => at(name, each['schema'], news.get(name)?.['schema'], 'input'));
    const required = [...news].filter(([name, each]) => each['required'] === true && !olds.get(name)?.['required']);
    return [...kept, ...required.map(([name]) => `${name}: made required`)];
  }

  function compareBody(old: Json, now: Json): string[] {
    const [oldBody, newBody] = [old['requestBody'], now['requestBody']];
    const madeRequired = memberOf(newBody, 'required') === true && memberOf(oldBody, 'required') !== true;
    const kept = entriesOf(memberOf(oldBody, 'content')).flatMap(([media, each]) =>
      at(
        `body ${media}`,
        memberOf(each, 'schema'),
        memberOf(memberOf(memberOf(newBody, 'content'), media), 'schema'),
        'input',
      ),
    );
    return [...kept, ...(madeRequired ? ['body: made required'] : [])];
  }

  function compareAnswers(old: Json, now: Json): string[] {
    return entriesOf(old['responses']).flatMap(([status, each]) => {
      const answer = memberOf(now['responses'], status);
      if (answer === undefined) return [`${status}: removed`];
      return entriesOf(memberOf(each, 'content')).flatMap(([media, { schema }]) =>
        at(status, schema, memberOf(memberOf(memberOf(answer, 'content'), media), 'schema'), 'output'),
      );
    });
  }
}

/** An AsyncAPI document: where each channel is, and what is on it. */
export function compareAsyncApi(before: Json, after: Json): string[] {
  return entriesOf(before['channels']).flatMap(([name, old]) => {
    const now = memberOf(after['channels'], name);
    if (!isObject(now)) return [`${name}: removed`];
    if (now['address'] !== old['address']) return [`${name}: has another address`];
    const messages = entriesOf(old['messages']).filter(([message]) => memberOf(now['messages'], message) === undefined);
    return messages.map(([message]) => `${name} ${message}: removed`);
  });
}

function entriesOf(value: unknown): [string, Json][] {
  return isObject(value) ? (Object.entries(value) as [string, Json][]) : [];
}

function memberOf(value: unknown, name: string): unknown {
  return isObject(value) ? value[name] : undefined;
}
