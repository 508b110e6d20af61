import type { RuleSet } from './rules.ts';

const requestSyntax = /^([A-Za-z]+) https?:\/\/([^/?#\s]*)(\/\S*)?$/;

/** Which rule a request meets, and what that means for it, in words. Throws when it is not `METHOD URL`. */
export function explain(rules: RuleSet, request: string): string {
  const [, method, host, path = '/'] = requestSyntax.exec(request) ?? [];
  if (method === undefined || host === undefined) throw new Error("a request is 'METHOD http(s)://HOST/PATH'");
  const found = rules.find({ method: method.toUpperCase(), host, path });
  switch (found.outcome) {
    case 'ambiguous':
      return 'refused, path_ambiguous: servers could read this path differently';
    case 'other-method':
      return `refused, method_not_allowed: the rules of this path have ${found.allowed.join(', ')}`;
    case 'none':
      return `no rule: ${accessInWords[rules.accessOf(found, undefined)]}`;
    case 'rule': {
      const { name, paths: _paths, hosts: _hosts, methods: _methods, access: _access, ...demand } = found.rule;
      const access = rules.accessOf(found, undefined);
      const more = Object.entries(demand).map(([what, value]) => `\n  ${what}: ${JSON.stringify(value)}`);
      return `rule ${JSON.stringify(name)} by ${found.pattern}: ${accessInWords[access]}${access === 'token' || access === 'anonymous' ? more.join('') : ''}`;
    }
  }
}

const accessInWords = {
  token: 'let in with a credential',
  anonymous: "let in without a credential, with a token of the gateway's own client",
  public: 'public, let in without a credential',
  deny: 'refused, route_denied',
} as const;
