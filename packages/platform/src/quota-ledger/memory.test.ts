import { systemClock } from '../clock/system.ts';
import { quotaLedgerConformance } from './conformance.ts';
import { createMemoryQuotaLedger } from './memory.ts';

quotaLedgerConformance('memory', async () => createMemoryQuotaLedger({ clock: systemClock }));
