export type Random = (below: number) => number;

/** Octets at which programs decide. */
const interesting = [0x00, 0x01, 0x7f, 0x80, 0xff, 0x0a, 0x0d, 0x20, 0x22, 0x25, 0x2e, 0x2f, 0x3b, 0x5c, 0x7b, 0x7d];

/** One input made of others by a few small changes; `words` are what the format has. */
export function mutate(corpus: readonly Buffer[], words: readonly Buffer[], random: Random, lengthMax: number): Buffer {
  const pick = <T>(items: readonly T[]): T => items[random(items.length)] as T;
  let bytes: Buffer = Buffer.from(pick(corpus));
  for (let changes = 1 + random(4); changes > 0; changes -= 1) {
    const at = random(bytes.length + 1);
    const until = Math.min(bytes.length, at + 1 + random(random(4) === 0 ? 64 : 4));
    const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)];
    const kinds = [
      () => Buffer.concat([before, Buffer.of(pick(interesting)), after]),
      () => Buffer.concat([before, bytes.subarray(until)]),
      () => Buffer.concat([before, bytes.subarray(at, until), after]),
      () => Buffer.concat([before, pick(words), after]),
      () => Buffer.concat([before, pick(words), bytes.subarray(until)]),
      () => {
        const other = pick(corpus);
        return Buffer.concat([before, other.subarray(random(other.length + 1))]);
      },
      () => flipped(bytes, at, random),
      () => flipped(bytes, at, random),
    ];
    bytes = pick(kinds)();
  }
  return bytes.subarray(0, lengthMax);
}

function flipped(bytes: Buffer, at: number, random: Random): Buffer {
  if (at >= bytes.length) return bytes;
  const octet = bytes[at] as number;
  const changed = [octet ^ (1 << random(8)), (octet + 1) & 0xff, (octet + 0xff) & 0xff, random(256)];
  const copy = Buffer.from(bytes);
  copy[at] = changed[random(changed.length)] as number;
  return copy;
}
