const unitMs: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };

/** A caller says the same with each call. */
let last: { readonly text: string; readonly ms: number | null } = { text: '', ms: null };

/** Milliseconds of a `grpc-timeout`: up to eight digits and a unit. Null when it is none. */
export function readTimeout(text: string): number | null {
  if (text !== last.text) last = { text, ms: parseTimeout(text) };
  return last.ms;
}

function parseTimeout(text: string): number | null {
  const [, digits, unit = ''] = /^(\d{1,8})([HMSmun])$/.exec(text) ?? [];
  return digits === undefined ? null : Number(digits) * (unitMs[unit] ?? 0);
}
