/** A file of rules, in YAML or JSON, read again when it changes. @module */
import { type Clock, ConfigError, type Logger, type Registry, startPeriodic } from '@token-gateway/platform';
import { Counter } from 'prom-client';
import { Compile } from 'typebox/compile';
import { parse } from 'yaml';
import { RulesSchema } from './rule.ts';
import { RuleSet } from './rules.ts';

const form = Compile(RulesSchema);
/** Looked at so often, since a file that is mounted into a container may change without a notification. */
const intervalMs = 1000;

/** Throws an error that says where the text is wrong. */
export function parseRules(text: string): RuleSet {
  const value: unknown = parse(text, { strict: true, uniqueKeys: true });
  if (form.Check(value)) return new RuleSet(value);
  const [first] = form.Errors(value);
  const what = first?.keyword === 'boolean' ? 'is not known' : (first?.message ?? 'is no set of rules');
  throw new Error(`${first?.instancePath || '/'}: ${what}`);
}

interface Deps {
  /** Resolves with the text of the file. */
  readonly read: () => Promise<string>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly registry: Registry;
}

export interface RuleFile {
  /** Those in force: the last ones that could be read whole. */
  current(): RuleSet;
  close(): Promise<void>;
}

/** Rejects with ConfigError when the rules cannot be read at first; later ones that cannot are not put in force. */
export async function openRuleFile({ read, clock, logger, registry }: Deps): Promise<RuleFile> {
  const refused = new Counter({
    name: 'tg_gateway_rules_refused_total',
    help: 'Looks at the file of rules that found it changed, and not usable: the rules before stay in force.',
    registers: [registry],
  });
  let text = await read().catch((cause: unknown) => {
    throw new ConfigError([`TG_RULES_FILE cannot be read: ${messageOf(cause)}`]);
  });
  let rules = firstRules(text);

  const reading = startPeriodic(
    { clock, logger },
    {
      what: 'read the rules',
      intervalMs,
      async work() {
        try {
          const newText = await read();
          if (newText === text) return;
          rules = parseRules(newText);
          text = newText;
          logger.info('new rules are in force');
        } catch (error) {
          refused.inc();
          throw error;
        }
      },
    },
  );
  return { current: () => rules, close: () => reading.close() };
}

function firstRules(text: string): RuleSet {
  try {
    return parseRules(text);
  } catch (cause) {
    throw new ConfigError([`TG_RULES_FILE: ${messageOf(cause)}`]);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
