import { spawnSync } from 'node:child_process';
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { createLogger, type LogOptions, toTemporalLogger } from '../src/log.ts';

/** A logger, and the lines it wrote. */
function recorded(options: Partial<LogOptions> = {}, isTTY = false) {
  let text = '';
  const sink = new Writable({
    write: (chunk, _encoding, done) => {
      text += String(chunk);
      done();
    },
  });
  const logger = createLogger({
    level: 'info',
    format: 'json',
    service: 'worker',
    stream: Object.assign(sink, { isTTY }),
    ...options,
  });
  const lines = () => text.split('\n').slice(0, -1);
  return { logger, lines, objects: () => lines().map((line): unknown => JSON.parse(line)), text: () => text };
}

describe('createLogger', () => {
  it('writes one JSON line for each message, with time, level, service and fields', () => {
    const { logger, objects } = recorded();
    logger.info('task started', { taskId: 't1', tokens: 5 });
    logger.error('task failed');
    expect(objects()).toEqual([
      {
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
        level: 'info',
        message: 'task started',
        service: 'worker',
        taskId: 't1',
        tokens: 5,
      },
      { time: expect.any(String), level: 'error', message: 'task failed', service: 'worker' },
    ]);
  });

  it.each([
    ['error', ['error']],
    ['warn', ['warn', 'error']],
    ['info', ['info', 'warn', 'error']],
    ['debug', ['debug', 'info', 'warn', 'error']],
  ] as const)('writes at level %s: %s', (level, written) => {
    const { logger, objects } = recorded({ level });
    for (const each of ['debug', 'info', 'warn', 'error'] as const) logger[each]('m');
    expect(objects().map((line) => Reflect.get(Object(line), 'level'))).toEqual(written);
    expect(logger.isDebugEnabled).toBe(level === 'debug');
    expect(logger.child({}).isDebugEnabled).toBe(level === 'debug');
  });

  it('gives the lines of a child its fields, and lets the own field of a line win', () => {
    const { logger, objects } = recorded();
    const child = logger.child({ taskId: 't1', n: 1 }).child({ callKey: 'c' });
    child.info('m', { n: 2 });
    logger.info('m');
    expect(objects()).toMatchObject([
      { taskId: 't1', callKey: 'c', n: 2, service: 'worker' },
      { service: 'worker' },
    ]);
    expect(objects()[1]).not.toHaveProperty('taskId');
  });

  it('keeps fields that are called like its own', () => {
    const { logger, objects } = recorded();
    logger.info('mine', { message: 'theirs', level: 'odd', time: 5 });
    expect(objects()).toMatchObject([
      { message: 'mine', level: 'info', message_: 'theirs', level_: 'odd', time_: 5 },
    ]);
  });

  it('writes to standard output by default', () => {
    const code = `import { createLogger } from ${JSON.stringify(new URL('../src/log.ts', import.meta.url).href)};
      createLogger({ level: 'info', format: 'auto', service: 'x' }).info('hello', { big: 5n });`;
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
      cwd: fileURLToPath(new URL('..', import.meta.url)),
      encoding: 'utf8',
    });
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toMatchObject({ message: 'hello', big: '5', service: 'x' });
  });
});

describe('the format of a line', () => {
  it('is JSON where the output is no terminal, and readable where it is one', () => {
    const [piped, terminal] = [recorded({ format: 'auto' }), recorded({ format: 'auto' }, true)];
    const [json, pretty] = [recorded({ format: 'json' }, true), recorded({ format: 'pretty' })];
    for (const { logger } of [piped, terminal, json, pretty])
      logger.warn('call failed', { attempt: 2, model: 'a/b', more: { x: 1 } });
    for (const { objects } of [piped, json])
      expect(objects()).toMatchObject([{ message: 'call failed', attempt: 2 }]);
    for (const { lines } of [terminal, pretty])
      expect(lines()).toEqual([
        expect.stringMatching(
          /^\d\d:\d\d:\d\d\.\d{3} warn {2}call failed attempt=2 model=a\/b more=\{"x":1\}$/,
        ),
      ]);
  });

  it('has stacks and causes below a readable line', () => {
    const { logger, text } = recorded({ format: 'pretty' });
    const error = Object.assign(
      new Error('outer', { cause: new Error('middle', { cause: new TypeError('inner') }) }),
      { status: 503 },
    );
    logger.error('call failed', { error });
    expect(text()).toMatch(
      /error call failed error=outer error\.status=503\n {4}Error: outer\n[\s\S]*\n {4}caused by Error: middle\n[\s\S]*\n {4}caused by TypeError: inner\n/,
    );
  });
});

describe('toTemporalLogger', () => {
  it('writes lines of Temporal at their level, with the task they belong to', () => {
    const { logger, objects } = recorded({ level: 'debug' });
    const temporal = toTemporalLogger(logger);
    temporal.trace('a');
    temporal.debug('b');
    temporal.info('c', { workflowId: 'w1', taskToken: 'x', [Symbol.for('log_timestamp')]: 5n });
    temporal.warn('d');
    temporal.error('e', { error: new Error('boom') });
    temporal.log('TRACE', 'f');
    temporal.log('WARN', 'g', { workflowId: 'w1', taskId: 't1' });
    expect(objects()).toMatchObject([
      { level: 'debug', message: 'a' },
      { level: 'debug', message: 'b' },
      { level: 'info', message: 'c', taskId: 'w1', workflowId: 'w1' },
      { level: 'warn', message: 'd' },
      { level: 'error', message: 'e', error: { message: 'boom' } },
      { level: 'debug', message: 'f' },
      { level: 'warn', message: 'g', taskId: 't1' },
    ]);
    expect(objects()[2]).not.toHaveProperty('taskToken');
  });
});
