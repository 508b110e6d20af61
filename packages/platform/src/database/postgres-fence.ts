/**
 * Whether this server is still the primary, where nothing else fences it: its synchronous standby says so by acknowledging
 * a write, for it cannot acknowledge one after it was promoted.
 * @module
 */
import type postgres from 'postgres';
import type { Clock } from '../clock/port.ts';
import { systemClock } from '../clock/system.ts';
import { ServiceError } from '../errors.ts';
import type { Logger } from '../telemetry.ts';
import { answered } from './postgres-client.ts';
import { openPostgresSession, type PostgresSession } from './postgres-session.ts';

export interface StandbyFence {
  /** What the server lacks for a commit to wait for a standby; empty when it waits. */
  problems(): Promise<string[]>;
  /**
   * Resolves once a write that began after the call was acknowledged by the synchronous standby: until then no other
   * server had taken this one's place. Rejects with `database_unavailable`.
   */
  confirm(): Promise<void>;
  close(): Promise<void>;
}

interface Settings {
  readonly standbys: string;
  readonly commit: string;
}

interface FenceSession extends PostgresSession {
  /** Aborts when the server gave up waiting for the standby, after which it says of a commit that it is done. */
  readonly gaveUp: AbortSignal;
}

const deadlineMs = 2_000;
const settings = `
  current_setting('synchronous_standby_names') as standbys,
  current_setting('synchronous_commit') as commit`;
/** In the log alone: there is no row that it would leave dead. */
const write = `select ${settings}, pg_logical_emit_message(true, 'token-gateway', '')`;
/** Where Postgres waits for standbys. The text of what it says there is in the server's language. */
const waitingRoutine = 'SyncRepWaitForLSN';

/** On a connection of its own, which is made when it is needed, and again after each write that was not acknowledged. */
export function createStandbyFence(
  url: string,
  { logger, clock = systemClock }: { readonly logger: Logger; readonly clock?: Clock },
): StandbyFence {
  let opening: Promise<FenceSession> | null = null;
  /** Of the server's process behind the last session, which may still wait for a standby. */
  let backend = 0;
  let isFailing = false;

  async function open(): Promise<FenceSession> {
    const gaveUp = new AbortController();
    const onnotice = ({ routine }: postgres.Notice) => {
      if (routine === waitingRoutine) gaveUp.abort();
    };
    const options = { connect_timeout: deadlineMs / 1000, fetch_types: false, onnotice };
    const session = await openPostgresSession(url, { ...options, connection: { application_name } }, clock);
    try {
      const isFormer = session.sql`pid = ${backend} and application_name = ${application_name}`;
      const [own] = await answered(
        session.sql<{ pid: number }[]>`
          select pg_backend_pid() as pid, (select count(pg_terminate_backend(pid)) from pg_stat_activity where ${isFormer})`,
        clock,
        deadlineMs,
      );
      backend = own?.pid ?? 0;
    } catch (error) {
      await session.close();
      throw error;
    }
    return { ...session, gaveUp: gaveUp.signal };
  }

  async function ask(statement: string): Promise<Settings> {
    opening ??= open();
    const used = opening;
    try {
      const session = await used;
      const [row] = await answered(session.sql.unsafe<Settings[]>(statement), clock, deadlineMs);
      if (row === undefined || session.gaveUp.aborted) throw unconfirmed('the wait for the standby was given up');
      return row;
    } catch (error) {
      if (opening === used) opening = null;
      void used.then((session) => session.close()).catch(() => {});
      throw error;
    }
  }

  return {
    problems: async () => problemsOf(await ask(`select ${settings}`)),

    async confirm() {
      try {
        const problems = problemsOf(await ask(write));
        if (problems.length > 0) throw unconfirmed(problems.join('; '));
        if (isFailing) logger.info('the synchronous standby acknowledges again');
        isFailing = false;
      } catch (err) {
        if (!isFailing) logger.warn({ err }, 'the synchronous standby does not acknowledge: nothing is answered');
        isFailing = true;
        throw err;
      }
    },

    async close() {
      const session = await opening?.catch(() => null);
      await session?.close();
    },
  };
}

const application_name = 'token-gateway-fence';

function problemsOf({ standbys, commit }: Settings): string[] {
  const problems: string[] = [];
  if (standbys.trim() === '') problems.push('the database has no synchronous_standby_names');
  if (commit !== 'on' && commit !== 'remote_apply') {
    problems.push(`synchronous_commit is ${commit}; it has to be on or remote_apply`);
  }
  return problems;
}

function unconfirmed(detail: string): ServiceError {
  return new ServiceError('database_unavailable', { detail });
}
