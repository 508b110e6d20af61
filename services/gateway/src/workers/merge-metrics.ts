/** Texts for Prometheus as one, in which each metric is described once; their series differ by a label. */
export function mergeMetrics(texts: readonly string[]): string {
  const metrics = new Map<string, { readonly head: Set<string>; readonly series: string[] }>();
  for (const text of texts) {
    let name = '';
    for (const line of text.split('\n').filter((each) => each !== '')) {
      name = /^# (?:HELP|TYPE) (\S+)/.exec(line)?.[1] ?? name;
      const { head, series } = metrics.get(name) ?? { head: new Set<string>(), series: [] };
      metrics.set(name, { head, series });
      if (line.startsWith('# ')) head.add(line);
      else series.push(line);
    }
  }
  return [...metrics.values()].map(({ head, series }) => `${[...head, ...series].join('\n')}\n`).join('\n');
}
