import assert from 'node:assert/strict';
import { test } from 'node:test';
import { problemOf } from '@token-gateway/platform';
import { buildOpenApi } from './openapi.ts';

interface Operation {
  readonly responses: Readonly<Record<string, { readonly content: Readonly<Record<string, { schema: Schema }>> }>>;
}

interface Schema {
  readonly required: readonly string[];
}

test('the OpenAPI document has the refusals of every route, as problem bodies', async () => {
  const { paths } = (await buildOpenApi()) as { paths: Record<string, Record<string, Operation>> };
  const operations = Object.values(paths).flatMap((methods) => Object.values(methods));
  assert.ok(operations.length > 25);
  for (const { responses } of operations) {
    for (const status of ['4XX', '503']) {
      const schema = responses[status]?.content['application/problem+json']?.schema;
      assert.deepEqual(schema?.required.toSorted(), Object.keys(problemOf('not_found')).toSorted());
    }
  }
});
