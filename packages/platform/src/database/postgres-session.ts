import postgres from 'postgres';
import type { Clock } from '../clock/port.ts';
import { answered } from './postgres-client.ts';

/** A connection that someone depends on as such: what it holds or hears is gone with it. */
export interface PostgresSession {
  readonly sql: postgres.Sql;
  /** Aborts when the connection ended or did not answer in time, not when it is closed here. */
  readonly lost: AbortSignal;
  close(): Promise<void>;
}

const keepAliveIntervalMs = 2_000;
/** Of the connection and of each keep-alive query, so that a connection is known as lost within two intervals. */
const answerDeadlineMs = 2_000;
/** After which the server ends the session of a client that it hears nothing of, and frees its locks. */
const serverPatienceMs = 10_000;

export async function openPostgresSession(
  url: string,
  options: postgres.Options<Record<string, never>>,
  clock: Clock,
  onNotification?: (payload: string) => void,
): Promise<PostgresSession> {
  const lost = new AbortController();
  const closed = new AbortController();
  const sessionOptions: postgres.Options<Record<string, never>> & { readonly onnotify: unknown } = {
    ...options,
    max: 1,
    // Lest the connection be replaced in silence.
    idle_timeout: undefined,
    max_lifetime: null,
    connection: { ...options.connection, idle_session_timeout: serverPatienceMs },
    onclose: () => {
      if (!closed.signal.aborted) lost.abort();
    },
    // Not in postgres.js' types, but what its own `listen` is made with; that has no deadline.
    onnotify: (_channel: string, payload: string) => onNotification?.(payload),
  };
  const sql = postgres(url, sessionOptions);
  const end = (): Promise<void> => sql.end({ timeout: 0 });
  try {
    await answered(sql`select 1`, clock, answerDeadlineMs);
  } catch (error) {
    closed.abort();
    void end();
    throw error;
  }
  void keepAlive();

  async function keepAlive(): Promise<void> {
    const over = AbortSignal.any([lost.signal, closed.signal]);
    await clock.sleep(keepAliveIntervalMs, over);
    while (!over.aborted) {
      try {
        await answered(sql`select 1`, clock, answerDeadlineMs);
      } catch {
        if (!closed.signal.aborted) lost.abort();
      }
      await clock.sleep(keepAliveIntervalMs, over);
    }
    await end();
  }

  return {
    sql,
    lost: lost.signal,
    close() {
      closed.abort();
      return end();
    },
  };
}
