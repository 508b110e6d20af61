import { randomBytes } from 'node:crypto';
import { createEnvelopeVault, localKek } from './envelope.ts';
import type { KeyVault } from './port.ts';

/** A vault whose keys are gone with the process, as what it seals must be: for tests and for databases in memory. */
export function createMemoryKeyVault(
  [newest, ...older]: readonly [Uint8Array, ...Uint8Array[]] = [randomBytes(32)],
): KeyVault {
  return createEnvelopeVault([localKek('memory', newest), ...older.map((key) => localKek('memory', key))]);
}
