/**
 * The SQLSTATE (or the driver's own code) of what a query was rejected with, through whatever it was wrapped in; null
 * where there is none. For example 23505: a unique index says no.
 */
export function sqlStateOf(error: unknown): string | null {
  let cause = error;
  for (let depth = 0; depth < 8 && cause instanceof Error; depth += 1) {
    if ('code' in cause && typeof cause.code === 'string') return cause.code;
    cause = cause.cause;
  }
  return null;
}
