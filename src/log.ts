// Log lines: a constant message plus fields, as JSON on stdout, or readable on a terminal. No prompt, answer or key may pass: what
// looks like a secret is masked here, once for all callers, and Temporal's own lines go through the same format.

import type { Logger as TemporalLogger } from '@temporalio/worker';
import winston from 'winston';
import { toPrintable } from './log/printable.ts';

type LogLevel = 'error' | 'warn' | 'info' | 'debug';
export type LogFields = Readonly<Record<string, unknown>>;

export type Logger = {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  /** Only when a person should look. */
  error(message: string, fields?: LogFields): void;
  /** A logger whose lines carry these fields as well; a line's own field wins. */
  child(fields: LogFields): Logger;
  /** For fields that cost something to make. */
  readonly isDebugEnabled: boolean;
};

/** The one that a process creates. */
export type RootLogger = Logger & {
  /** From now on, for its children too. */
  setLevel(level: LogLevel): void;
};

export type LogOptions = {
  readonly level: LogLevel;
  /** `auto`: readable lines on a terminal, JSON elsewhere. */
  readonly format: 'json' | 'pretty' | 'auto';
  /** `worker`, `gateway`, …: in each line. */
  readonly service: string;
  /** Instead of the process's standard output. */
  readonly stream?: NodeJS.WritableStream & { readonly isTTY?: boolean };
};

const LEVELS = { error: 0, warn: 1, info: 2, debug: 3 } as const satisfies Record<LogLevel, number>;

export function createLogger({ level, format, service, stream = process.stdout }: LogOptions): RootLogger {
  const isPretty = format === 'pretty' || (format === 'auto' && stream.isTTY === true);
  const target = winston.createLogger({
    level,
    levels: LEVELS,
    format: winston.format((line) => ({
      ...line,
      [MESSAGE]: isPretty ? toReadable(line) : JSON.stringify(toJson(line)),
    }))(),
    transports: [new winston.transports.Stream({ stream, eol: '\n' })],
  });
  const setLevel = (next: LogLevel) => {
    target.level = next;
  };
  return Object.assign(withFields(target, { service }), { setLevel });
}

/** Temporal's runtime and core log through ours. A workflow's id is our task id; task tokens are of no use to a reader. */
export function toTemporalLogger(logger: Logger): TemporalLogger {
  const write =
    (level: LogLevel) =>
    (message: string, meta: LogFields = {}): void => {
      const { taskToken: _, ...fields } = meta;
      logger[level](
        message,
        fields['workflowId'] === undefined ? fields : { taskId: fields['workflowId'], ...fields },
      );
    };
  const lines = {
    trace: write('debug'),
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
  };
  return {
    ...lines,
    log: (level, message, meta) => lines[TEMPORAL_LEVELS[level]](message, meta),
  };
}

const TEMPORAL_LEVELS = {
  TRACE: 'trace',
  DEBUG: 'debug',
  INFO: 'info',
  WARN: 'warn',
  ERROR: 'error',
} as const;

/** Where winston's transports look for the finished line. */
const MESSAGE = Symbol.for('message');

function withFields(target: winston.Logger, base: LogFields): Logger {
  const write =
    (level: LogLevel) =>
    (message: string, fields: LogFields = {}): void => {
      // One object, since winston appends the `message` of metadata to the line's own.
      if (target.isLevelEnabled(level)) target.log({ level, message, fields: { ...base, ...fields } });
    };
  return {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    child: (fields) => withFields(target, { ...base, ...fields }),
    get isDebugEnabled() {
      return target.isLevelEnabled('debug');
    },
  };
}

type Line = { readonly level: string; readonly message: unknown; readonly [key: string]: unknown };

/** Own keys of a line come first and win; a field of the same name is kept beside them. */
function toJson({ level, message, fields }: Line): Record<string, unknown> {
  const line: Record<string, unknown> = {
    time: new Date().toISOString(),
    level,
    message: toPrintable(message),
  };
  const printable = toPrintable(fields);
  for (const [name, value] of Object.entries(Object(printable)))
    line[Object.hasOwn(line, name) ? `${name}_` : name] = value;
  return line;
}

function toReadable(line: Line): string {
  const { time, level, message, service: _, ...fields } = toJson(line);
  const parts: string[] = [];
  const stacks: string[] = [];
  for (const [name, value] of Object.entries(fields)) {
    const error = toUnfolded(value);
    parts.push(`${name}=${error?.message ?? toText(value)}`);
    if (error === undefined) continue;
    stacks.push(...stacksOf(error).map((stack, index) => (index === 0 ? stack : `caused by ${stack}`)));
    for (const [part, inner] of Object.entries(error.details)) parts.push(`${name}.${part}=${toText(inner)}`);
  }
  const head = [String(time).slice(11, 23), String(level).padEnd(5), message, ...parts].join(' ');
  return [head, ...stacks.map((stack) => stack.replaceAll(/^/gm, '    '))].join('\n');
}

type Unfolded = {
  readonly message: string;
  readonly stack: string;
  readonly cause: unknown;
  readonly details: object;
};

/** An error as `toPrintable` left it. */
function toUnfolded(value: unknown): Unfolded | undefined {
  if (typeof value !== 'object' || value === null || !('stack' in value)) return undefined;
  const { message, stack, cause, name: _, ...details } = value as Record<string, unknown>;
  return { message: String(message), stack: String(stack), cause, details };
}

function stacksOf(error: Unfolded): string[] {
  const cause = toUnfolded(error.cause);
  return cause === undefined ? [error.stack] : [error.stack, ...stacksOf(cause)];
}

function toText(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}
