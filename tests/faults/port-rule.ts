/** A path as the kernel sees it: what goes to a port of this machine and back, for those that no proxy can stand between. */
import { execFile, execFileSync } from 'node:child_process';
import { promisify } from 'node:util';
import { type LinkState, lossShare } from './link.ts';

const run = promisify(execFile);

const rules = {
  cut: ['-p', 'tcp', '-j', 'REJECT', '--reject-with', 'tcp-reset'],
  'black-hole': ['-p', 'tcp', '-j', 'DROP'],
  lossy: ['-p', 'tcp', '-m', 'statistic', '--mode', 'random', '--probability', `${lossShare}`, '-j', 'DROP'],
} as const;

export type PortState = Exclude<LinkState, 'slow'>;

/** Needs the right to change the rules of the loopback interface. */
export class PortRule {
  readonly #ports: readonly number[];
  #state: PortState = 'through';

  constructor(ports: readonly number[]) {
    this.#ports = ports;
    // A rule outlives the process that made it.
    process.once('exit', () => {
      if (this.#state === 'through') return;
      for (const rule of this.#rules('-D', this.#state)) execFileSync('iptables', rule);
    });
  }

  async set(state: PortState): Promise<void> {
    if (this.#state !== 'through') await this.#change('-D', this.#state);
    this.#state = state;
    if (state !== 'through') await this.#change('-I', state);
  }

  async #change(verb: '-I' | '-D', state: keyof typeof rules): Promise<void> {
    for (const rule of this.#rules(verb, state)) await run('iptables', rule);
  }

  #rules(verb: '-I' | '-D', state: keyof typeof rules): string[][] {
    const [protocol, name, ...rest] = rules[state];
    return this.#ports.flatMap((port) =>
      ['--dport', '--sport'].map((side) => ['-w', verb, 'INPUT', '-i', 'lo', protocol, name, side, `${port}`, ...rest]),
    );
  }
}
