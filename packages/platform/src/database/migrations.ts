import { basename, dirname, resolve } from 'node:path';

/**
 * Drizzle compares only with the newest migration that its table has, so each folder has a table of its own, named after
 * the folder's parent: services may then share a database.
 */
export function migrationConfig(folder: string): { migrationsFolder: string; migrationsTable: string } {
  const owner = basename(dirname(resolve(folder))).replaceAll('-', '_');
  return { migrationsFolder: folder, migrationsTable: `${owner}_migrations` };
}
