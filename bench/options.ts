/** The number of `--name=NUMBER` or `--name NUMBER`, or another. Throws where it is no number. */
export function numberOf(args: readonly string[], name: string, other: number): number {
  const index = args.findIndex((argument) => argument === `--${name}` || argument.startsWith(`--${name}=`));
  if (index < 0) return other;
  const text = args[index]?.split('=')[1] ?? args[index + 1] ?? '';
  const number = Number(text);
  if (text === '' || Number.isNaN(number)) throw new Error(`--${name} needs a number, not "${text}"`);
  return number;
}
