import { signalConformance } from './conformance.ts';
import { createMemorySignal } from './memory.ts';

signalConformance('memory', async () => createMemorySignal());
