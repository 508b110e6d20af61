/**
 * What postgres.js leaves open: it has no deadline for an answer. A database behind a network that drops everything
 * would keep callers waiting and, since it gives up no connection by itself, the pool occupied until TCP gives up a
 * quarter of an hour later.
 * @module
 */

import { drizzle } from 'drizzle-orm/postgres-js';
import type postgres from 'postgres';
import type { Clock } from '../clock/port.ts';
import { ServiceError } from '../errors.ts';
import { sqlStateOf } from './sql-state.ts';

type Sql = postgres.Sql;

/** Rejects with `database_unavailable` what has no answer in time, and what failed because of the connection. */
export async function answered<T>(
  operation: PromiseLike<T>,
  clock: Clock,
  deadlineMs: number,
  onLate: () => void = () => {},
): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = clock.setTimer(() => {
    late.reject(new ServiceError('database_unavailable', { detail: `no answer within ${deadlineMs} ms` }));
    onLate();
  }, deadlineMs);
  try {
    return await Promise.race([operation, late.promise]);
  } catch (error) {
    throw isUnavailable(error) ? new ServiceError('database_unavailable', { cause: error }) : error;
  } finally {
    timer.cancel();
  }
}

/**
 * Not the statement's fault: the connection, the server's state, or its limits. 08 connection exception, 53 insufficient
 * resources, 57 operator intervention (shutdown, statement timeout), 25006 read-only since this is no primary (any
 * more), 25P03 idle in transaction, 55000 a standby was asked what only a primary knows, 55P03 lock not available.
 */
const unavailableState = /^(?:08...|53...|57...|25006|25P03|55000|55P03)$/;
/** What ended the connection under a statement: there is nothing more to say on it. */
const lostCodes = [
  'CONNECTION_CLOSED',
  'CONNECTION_DESTROYED',
  'CONNECTION_ENDED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
] as const;
const connectionCodes: ReadonlySet<string> = new Set([
  ...lostCodes,
  'CONNECT_TIMEOUT',
  'EADDRNOTAVAIL',
  'EAI_AGAIN',
  'ECONNABORTED',
  'ECONNREFUSED',
  'EHOSTDOWN',
  'EHOSTUNREACH',
  'EMFILE',
  'ENETDOWN',
  'ENETUNREACH',
  // Of a socket in a file system.
  'ENOENT',
  'ENOTFOUND',
]);

function isUnavailable(error: unknown): boolean {
  const state = sqlStateOf(error);
  return isConnectionFailure(error) || (state !== null && unavailableState.test(state));
}

/** There was no connection, or no longer one: no server has said anything. */
function isConnectionFailure(error: unknown): boolean {
  const state = sqlStateOf(error);
  return state !== null && connectionCodes.has(state);
}

function isConnectionLost(error: unknown): boolean {
  const state = sqlStateOf(error instanceof ServiceError ? error.cause : error);
  return lostCodes.some((code) => code === state) || isFatal(error);
}

/** The server's last word on a connection, such as that it shuts down: it closes it right after. */
function isFatal(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return ('severity' in error && /^(?:FATAL|PANIC)$/.test(String(error.severity))) || isFatal(error.cause);
}

/** The body of a transaction, or of a savepoint in it. */
type Scope = <T>(body: Promise<T>) => Promise<T>;

export interface GuardedClient {
  /** As much of a postgres.js client as drizzle uses. */
  readonly sql: Sql;
  /** Lets the operations under way come to their end, for a time; whatever is left or comes later rejects. */
  end(timeoutMs: number): Promise<void>;
}

/**
 * A pool whose every operation (a statement, or a transaction as a whole) has an answer within the deadline or rejects.
 * When none at all was answered since the late one began, the pool's connections are given up and new ones made.
 */
export function createGuardedClient(connect: () => Sql, clock: Clock, deadlineMs: number): GuardedClient {
  let current = open();
  let answeredAtMs = clock.now().monotonicMs;
  const underWay = new Set<PromiseLike<unknown>>();

  function open(): Sql {
    const client = connect();
    // For its effect on the client's parsers: drizzle reads dates and JSON as text.
    drizzle(client);
    return client;
  }

  async function guarded<T>(client: Sql, operation: PromiseLike<T>): Promise<T> {
    const startedAtMs = clock.now().monotonicMs;
    const settled = (error?: unknown): void => {
      if (!isConnectionFailure(error)) answeredAtMs = clock.now().monotonicMs;
    };
    // An operation that is refused was answered, too.
    operation.then(() => settled(), settled);
    const giveUp = (): void => {
      if (answeredAtMs >= startedAtMs || client !== current) return;
      current = open();
      void client.end({ timeout: 0 });
    };
    underWay.add(operation);
    try {
      return await answered(operation, clock, deadlineMs, giveUp);
    } finally {
      underWay.delete(operation);
    }
  }

  function unsafe(...args: Parameters<Sql['unsafe']>) {
    const client = current;
    const query = client.unsafe(...prepared(args));
    const result = guarded(client, query).then(fromFirstRow);
    // Drizzle asks for rows as arrays right after; postgres.js sends a query in the next microtask.
    return Object.assign(result, {
      values() {
        void query.values();
        return result;
      },
    });
  }

  async function begin<T>(transaction: (sql: postgres.TransactionSql) => Promise<T>): Promise<T> {
    const client = current;
    let over = false;
    let isLost = false;
    /**
     * Does not reject once the connection is gone: postgres.js would roll back on it, an error that nobody can catch
     * (porsager/postgres#1208). The transaction has rejected by then.
     */
    const rejectingWhileOpen: Scope = async (body) => {
      try {
        return await body;
      } catch (error) {
        if (isLost || isConnectionLost(error)) await new Promise<never>(() => {});
        throw error;
      }
    };
    try {
      return (await guarded(
        client,
        client.begin((sql) => {
          // It may have waited for a connection until after its deadline.
          if (over) throw transactionOver();
          return rejectingWhileOpen(transaction(whileOpen(sql, () => over, rejectingWhileOpen)));
        }),
      )) as T;
    } catch (error) {
      isLost = isConnectionLost(error);
      throw error;
    } finally {
      over = true;
    }
  }

  return {
    sql: { options: current.options, unsafe, begin } as unknown as Sql,
    async end(timeoutMs) {
      const done = new AbortController();
      await Promise.race([Promise.allSettled(underWay), clock.sleep(timeoutMs, done.signal)]);
      done.abort();
      // Not left to postgres.js: it goes on waiting for a statement whose connection was ended by the server.
      await current.end({ timeout: 0 });
    },
  };
}

/**
 * Drizzle's texts are few and have parameters: planned once per connection, and in one round trip instead of two. (What
 * has no parameters goes by the simple protocol, where several statements may be in one text.)
 */
function prepared([text, parameters, options]: Parameters<Sql['unsafe']>): Parameters<Sql['unsafe']> {
  return [text, parameters, { ...options, prepare: true }];
}

/**
 * After a result that an error or the end of its connection cut short, postgres.js puts the rows of the connection's next
 * one behind as many holes; within a transaction never, since BEGIN ends the count.
 */
function fromFirstRow<T extends readonly unknown[]>(result: T): T {
  let first = 0;
  while (first < result.length && !(first in result)) first += 1;
  if (first > 0) (result as unknown as unknown[]).splice(0, first);
  return result;
}

/**
 * A transaction's handle that refuses statements when the transaction is over. postgres.js would send them on whatever
 * the connection is by then: each committed on its own, or an error that nobody can catch.
 */
function whileOpen<T extends postgres.TransactionSql>(sql: T, isOver: () => boolean, scope: Scope): T {
  return new Proxy(sql, {
    get(target, name) {
      if (name === 'unsafe') {
        return (...args: Parameters<Sql['unsafe']>) => {
          if (isOver()) throw transactionOver();
          return target.unsafe(...prepared(args));
        };
      }
      if (name === 'savepoint') {
        return (nested: (sql: postgres.TransactionSql) => Promise<unknown>) =>
          target.savepoint((inner) => scope(nested(whileOpen(inner, isOver, scope))));
      }
      return Reflect.get(target, name);
    },
  });
}

function transactionOver(): ServiceError {
  return new ServiceError('database_unavailable', { detail: 'the transaction is over' });
}
