/** The number of `--name=NUMBER`, or another. */
export function numberOf(args: readonly string[], name: string, other: number): number {
  return Number(args.find((argument) => argument.startsWith(`--${name}=`))?.split('=')[1] ?? other);
}
