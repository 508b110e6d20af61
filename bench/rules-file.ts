/** Rules for as many routes as a large system has, and for the one that is asked for. */
import { rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const rulesCount = 1000;

export function rulesText(): string {
  const rules = Array.from({ length: rulesCount }, (_, at) => {
    return `- { name: r${at}, paths: ["/service-${at}/{id}/items"], methods: [GET], entitlements: [read] }`;
  });
  const own = '- { name: orders, paths: ["/orders/{id}"], methods: [GET], entitlements: [read] }';
  return `rules:\n${[...rules, own].join('\n')}\n`;
}

/** Returns the name of a file that is removed in the end. */
export async function writeRules(stack: AsyncDisposableStack): Promise<string> {
  const file = join(tmpdir(), `token-gateway-rules-${process.pid}.yaml`);
  stack.defer(() => rm(file, { force: true }));
  await writeFile(file, rulesText());
  return file;
}
