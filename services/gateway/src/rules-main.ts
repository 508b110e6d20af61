/**
 * What a file of rules says.
 *
 *     npm run rules -- rules.yaml                                             whether it can be used
 *     npm run rules -- rules.yaml --check 'GET https://api.example.com/orders/7'   and which rule such a request meets
 *     npm run rules -- --schema                                               its JSON Schema, for editors
 * @module
 */
import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { explain } from './rules/explain.ts';
import { parseRules } from './rules/file.ts';
import { RulesSchema } from './rules/rule.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { check: { type: 'string' }, schema: { type: 'boolean' } },
});
const [path] = positionals;

if (values.schema === true) {
  const schema = 'https://json-schema.org/draft/2020-12/schema';
  console.log(JSON.stringify({ $schema: schema, title: 'Rules of a token gateway', ...RulesSchema }, null, 2));
} else if (path === undefined) {
  console.error("usage: npm run rules -- FILE [--check 'METHOD URL'] | --schema");
  process.exitCode = 2;
} else {
  try {
    const rules = parseRules(await readFile(path, 'utf8'));
    console.log(values.check === undefined ? 'can be used' : explain(rules, values.check));
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    process.exitCode = 1;
  }
}
