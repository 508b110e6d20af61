import { systemClock } from '../clock/system.ts';
import { eventLogConformance } from './conformance.ts';
import { createMemoryEventLog } from './memory.ts';

eventLogConformance('memory', {
  appends: true,
  async open() {
    const log = createMemoryEventLog({ clock: systemClock });
    let appended = 0;
    return {
      log,
      topic: 'topic',
      async append(count) {
        const values = Array.from({ length: count }, () => `value ${appended++}`);
        await log.append('topic', values);
        return values;
      },
    };
  },
});
