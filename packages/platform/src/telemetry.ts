/**
 * Logs and metrics. Nothing that opens a door leaves through a log: fields are redacted by name at any depth, requests
 * and errors are reduced to what is safe, and the finished line is searched for whatever looks like a credential.
 * @module
 */

import { type DestinationStream, type Logger, pino } from 'pino';
import { collectDefaultMetrics, Registry } from 'prom-client';

export type { Logger, Registry };

export interface Telemetry {
  readonly logger: Logger;
  readonly registry: Registry;
}

export interface TelemetryOptions {
  readonly service: string;
  /** A pino level, or `silent`. */
  readonly level: string;
  /** Beside the service, in each line and each series. */
  readonly labels?: Readonly<Record<string, string>>;
  /** Where lines go. Default: standard output, synchronously, so that the last line before an exit is not lost. */
  readonly destination?: DestinationStream;
}

export function createTelemetry({
  service,
  level,
  labels = {},
  destination = standardOutput(),
}: TelemetryOptions): Telemetry {
  const registry = new Registry();
  registry.setDefaultLabels({ service, ...labels });
  collectDefaultMetrics({ register: registry });
  return { logger: createLogger({ service, level, labels, destination }), registry };
}

function standardOutput(): DestinationStream {
  return pino.destination({ dest: 1, sync: true });
}

const silentLogger = pino({ enabled: false });

/** For tests: says nothing, and has an empty registry. */
export function createSilentTelemetry(): Telemetry {
  return { logger: silentLogger, registry: new Registry() };
}

function createLogger({ service, level, labels, destination }: Required<TelemetryOptions>): Logger {
  const logger = pino(
    {
      level,
      base: { service, ...labels },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      // Errors are described below; pino's own serializer would not know what to leave out.
      serializers: { err: (value: unknown) => value },
      hooks: {
        logMethod(args, method) {
          const [first, ...rest] = args.map((arg) => redactFields(arg));
          // The error member, so that pino takes its message from what is left of the error.
          method.apply(this, [args[0] instanceof Error ? { err: first } : first, ...rest] as Parameters<typeof method>);
        },
        streamWrite: redactText,
      },
    },
    destination,
  );
  const { child } = logger;
  // Children inherit this; pino has no hook for their bindings.
  logger.child = function redactedChild(this: Logger, bindings: object, ...rest: unknown[]) {
    return Reflect.apply(child, this, [redactFields(bindings), ...rest]);
  } as typeof child;
  return logger;
}

const redacted = '[redacted]';
/** Of a member's name in lower case without separators: how the names of what must not be logged end. */
const sensitiveName =
  /(?:authorization|cookie|password|passphrase|secret|secretsha256|secrethash|token|assertion|apikey|privatekey|clientkey|jwk|credential|credentials|headers|databaseurl|params|parameters)$/;
const depthLimit = 6;

const sensitiveText: readonly (readonly [RegExp, string])[] = [
  [/tgk_\w+/g, `tgk_${redacted}`],
  [/eyJ[\w-]{6,}(?:\.[\w-]*)*/g, redacted],
  [/(Bearer|Basic|DPoP) +[\w.~+/-]{16,}=*/gi, `$1 ${redacted}`],
  // The password of a URL
  [/(:\/\/[^\s:@/"]*):[^\s@/"]+@/g, `$1:${redacted}@`],
];

/** A text without anything that looks like an API key, a JWT, an authorization value or a URL's password. */
export function redactText(value: string): string {
  return sensitiveText.reduce((line, [pattern, replacement]) => line.replace(pattern, replacement), value);
}

function redactFields(value: unknown, depth = 0): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (value instanceof Error) return describeError(value, depth);
  if (depth >= depthLimit) return '[deep]';
  if (Array.isArray(value)) return value.map((item) => redactFields(item, depth + 1));
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (value instanceof Date || 'toJSON' in value) return value;
  if ('method' in value && 'url' in value) return describeRequest(value.method, value.url);
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return `[${value.constructor.name}]`;
  return Object.fromEntries(
    Object.entries(value).map(([name, member]) => [
      name,
      sensitiveName.test(name.replaceAll(/[-_]/g, '').toLowerCase()) ? redacted : redactFields(member, depth + 1),
    ]),
  );
}

function describeRequest(method: unknown, url: unknown): unknown {
  return { method: String(method), path: String(url).split('?')[0] };
}

/** Members beyond these stay out: drivers put statements with their parameters, and clients whole responses there. */
function describeError(error: Error, depth: number): unknown {
  const { message, stack = '' } = error;
  // The stack begins with the message; frames only, since drizzle's message ends with the statement's parameters.
  const frames = stack.slice(stack.indexOf(message) + message.length).match(/^ +at .*$/gm) ?? [];
  return {
    type: error.name === 'Error' ? error.constructor.name : error.name,
    message: 'params' in error ? message.replace(/\nparams: .*$/s, '') : message,
    ...('code' in error ? { code: error.code } : {}),
    stack: frames.join('\n'),
    ...(error.cause === undefined || depth >= depthLimit ? {} : { cause: redactFields(error.cause, depth + 1) }),
  };
}
