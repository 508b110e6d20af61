/** The number of `--name=NUMBER` or `--name NUMBER`, or another. Throws where it is no number. */
export function numberOf(args: readonly string[], name: string, other: number): number {
  const text = textOf(args, name);
  if (text === undefined) return other;
  const number = Number(text);
  if (Number.isNaN(number)) throw new Error(`--${name} needs a number, not "${text}"`);
  return number;
}

/** The text of `--name=TEXT` or `--name TEXT`, where there is one. */
export function textOf(args: readonly string[], name: string): string | undefined {
  const index = args.findIndex((argument) => argument === `--${name}` || argument.startsWith(`--${name}=`));
  if (index < 0) return undefined;
  const [, text = args[index + 1]] = args[index]?.split(/=(.*)/) ?? [];
  if (text === undefined || text === '') throw new Error(`--${name} needs a value`);
  return text;
}
