// Commands as processes: what they print, where, and with which exit code. The gateway is a stand-in of the test; Temporal, Postgres and
// Redis are real where a command needs them.

import { randomBytes } from 'node:crypto';
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { describe, expect, inject, it } from 'vitest';
import { openStream, sendEvent, sendJson, sendProblem, startTinyGateway } from '../client/tiny-gateway.ts';
import { eventually } from '../support/eventually.ts';
import { openShell } from './run-weir.ts';

const NO_USAGE = {
  inputTokens: 0,
  cachedInputTokens: 0,
  cacheWriteTokens: 0,
  outputTokens: 0,
  reasoningTokens: 0,
};
const USAGE = { ...NO_USAGE, inputTokens: 120, outputTokens: 30 };

function taskView(taskId: string, more: object = {}) {
  return {
    ...{ taskId, status: 'completed', phase: 'completed', tenantId: 'default', userId: 'ada' },
    ...{ strategy: 'simple', priority: 'normal', model: 'simulated/small', costUsd: '0.0012' },
    ...{ createdAt: '2026-01-02T03:04:05.678Z', usage: USAGE, links: {} },
    ...more,
  };
}

/** A stand-in through which one task runs to its end. */
const gatewayOfOneTask = (end: { status: string; error?: object }) =>
  startTinyGateway((response, { method, path }) => {
    if (method === 'POST') return sendJson(response, 202, { taskId: 'task-1', status: 'queued', links: {} });
    if (path.startsWith('/api/v1/tasks?')) return sendJson(response, 200, { tasks: [] });
    if (!path.includes('/stream'))
      return sendJson(response, 200, taskView('task-1', { ...end, result: { text: 'Hello.', steps: [] } }));
    openStream(response);
    sendEvent(response, 1, 'task_started', { message: 'greet' });
    sendEvent(response, 2, 'call_started', { data: { model: 'simulated/small' } });
    sendEvent(response, 3, 'call_delta', { data: { text: 'Hel\u001b[31m' } });
    sendEvent(response, 4, 'call_delta', { data: { text: 'lo.' } });
    sendEvent(response, 5, 'call_completed', { data: { usage: USAGE, costUsd: '0.0012' } });
    sendEvent(response, 6, 'stream_end', { data: { status: end.status } });
  });

describe('weir', () => {
  it('lists its commands', async () => {
    await using shell = await openShell();
    const { code, stdout } = await shell.weir(['--help']);
    expect(code).toBe(0);
    for (const command of [
      ...['submit', 'tail', 'tasks', 'cancel', 'usage', 'budget', 'approve', 'raise', 'erase', 'replay'],
      ...['dev', 'worker', 'gateway', 'migrate', 'bundle'],
    ])
      expect(stdout).toContain(`  ${command} `);
  });

  it.each([
    [['nonsense'], 'unknown command'],
    [['submit', 'x', '--nope'], "unknown option '--nope'"],
    [['dev', '--workers', '12abc'], 'It must be a whole number'],
    [['bundle'], "required option '--out <file>' not specified"],
    [['budget', 'grow', 'user', 'ada'], 'Allowed choices are get, set, add, remove, explain, list'],
    [['tail', 'task-1', '--after', 'yesterday'], '--after is a position such as 1-42'],
    [['replay'], 'give either --dir, or --save and --out'],
  ])('refuses %j with one clear message', async (args, message) => {
    await using shell = await openShell();
    const { code, stdout, stderr } = await shell.weir(args, { WEIR_URL: 'http://127.0.0.1:9' });
    expect(code).toBe(1);
    expect(stderr).toContain(message);
    expect(stderr).not.toContain('    at ');
    expect(stdout).toBe('');
  });

  it.each([
    [
      ['submit', 'hello'],
      ['--url', 'WEIR_URL', 'WEIR_API_KEY', 'TEMPORAL_ADDRESS', '.weir/stack.json'],
    ],
    [['tasks'], ['--url', 'WEIR_URL', '.weir/stack.json']],
    [
      ['replay', '--save', 'x', '--out', 'y'],
      ['--temporal', 'TEMPORAL_ADDRESS', '.weir/stack.json'],
    ],
  ])('%j names every place where an address could have been', async (args, names) => {
    await using shell = await openShell();
    const { code, stderr } = await shell.weir(args);
    expect(code).toBe(1);
    for (const name of names) expect(stderr).toContain(name);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });

  it.each([
    [['tasks', '--url', 'http://127.0.0.1:9'], 'no gateway answers at http://127.0.0.1:9'],
    [['tasks', '--url', 'localhost:8080'], 'is no URL of a gateway'],
    [['cancel', 'x', '--temporal', '127.0.0.1:9'], 'no Temporal server answers at 127.0.0.1:9'],
  ])('%j ends with one line', async (args, message) => {
    await using shell = await openShell();
    const { code, stderr } = await shell.weir(args);
    expect(code).toBe(1);
    expect(stderr).toContain(message);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });
});

describe('weir submit', () => {
  it('shows the task as plain lines and a summary, without anything a terminal would obey', async () => {
    await using server = await gatewayOfOneTask({ status: 'completed' });
    await using shell = await openShell();
    const { code, stdout } = await shell.weir(['submit', 'greet', '--user', 'ada', '--budget-usd', '0.5'], {
      WEIR_URL: server.url,
      WEIR_API_KEY: 'secret',
    });
    expect(code).toBe(0);
    expect(stdout).toContain('task-1  call_started  simulated/small');
    expect(stdout).toContain('task-1  | Hel[31mlo.');
    expect(stdout).toContain('120 → 30 tokens · $0.0012');
    expect(stdout).toMatch(/task-1 {2}completed {2}simulated\/small +120 +30 +0\.0012 {2}Hello\./);
    expect(stdout).not.toContain('\u001b');
    const submitted = server.asked.find(({ method }) => method === 'POST');
    expect(JSON.parse(submitted?.body ?? '')).toEqual({
      userId: 'ada',
      query: 'greet',
      budget: { usd: '0.5' },
    });
    expect(submitted?.headers.authorization).toBe('Bearer secret');
  });

  it('ends with 1 and the reason when the task did not complete', async () => {
    const error = { type: 'BudgetExceeded', message: 'budget exceeded: user ada', details: {} };
    await using server = await gatewayOfOneTask({ status: 'failed', error });
    await using shell = await openShell();
    const { code, stdout } = await shell.weir(['submit', 'greet', '--url', server.url]);
    expect(code).toBe(1);
    expect(stdout).toContain('task-1: budget exceeded: user ada');
  });

  it('prints the ended tasks alone as JSON', async () => {
    await using server = await gatewayOfOneTask({ status: 'completed' });
    await using shell = await openShell();
    const { code, stdout } = await shell.weir(['submit', 'greet', '--json', '--url', server.url]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ taskId: 'task-1', result: { text: 'Hello.' } });
  });

  it('reads a file, flags winning over its lines, and prints ids with --no-wait', async () => {
    await using server = await gatewayOfOneTask({ status: 'completed' });
    await using shell = await openShell();
    await writeFile(
      join(shell.folder, 'tasks.jsonl'),
      '\ufeff{"userId":"ada","query":"one","budget":{"tokens":5}}\r\n\n{"query":"two"}\n',
    );
    const { code, stdout } = await shell.weir([
      'submit',
      '--file',
      'tasks.jsonl',
      '--user',
      'bob',
      '--budget-usd',
      '1',
      '--no-wait',
      '--url',
      server.url,
    ]);
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'task-1\ntask-1\n' });
    expect(
      server.asked.map(({ body }) => JSON.parse(body)).toSorted((a, b) => a.query.localeCompare(b.query)),
    ).toEqual([
      { userId: 'bob', query: 'one', budget: { tokens: 5, usd: '1' } },
      { userId: 'bob', query: 'two', budget: { usd: '1' } },
    ]);
  });

  it('names every fault of every line and submits nothing', async () => {
    await using server = await gatewayOfOneTask({ status: 'completed' });
    await using shell = await openShell();
    const lines = [
      '{"userId":"ada","query":"fine"}',
      '{"userId":"a b","query":"","temperature":9}',
      'no json',
      '[]',
      '{"query":"who?"}',
    ];
    const { code, stderr } = await shell.weir(
      ['submit', '--file', '-', '--url', server.url],
      {},
      lines.join('\n'),
    );
    expect(code).toBe(1);
    for (const part of [
      '-:2:',
      'userId: expected',
      'query: expected',
      'temperature: expected',
      '-:3:',
      '-:4:',
      '-:5:',
    ])
      expect(stderr).toContain(part);
    expect(stderr).not.toContain('-:1:');
    expect(server.asked).toEqual([]);
  });

  it('names every fault of the flags', async () => {
    await using shell = await openShell();
    const { code, stderr } = await shell.weir([
      ...[
        'submit',
        ' ',
        '--user',
        'a b',
        '--tier',
        'huge',
        '--max-output-tokens',
        '12abc',
        '--reasoning-effort',
        'extreme',
      ],
      ...['--budget-usd=-1', '--priority', 'soon', '--deadline', 'tomorrow', '--id', 'a/b'],
    ]);
    expect(code).toBe(1);
    for (const path of [
      'taskId',
      'query',
      'userId',
      'tier',
      'maxOutputTokens',
      'reasoningEffort',
      'budget.usd',
      'priority',
      'deadline',
    ])
      expect(stderr).toContain(`  ${path}: expected`);
  });

  it("names the gateway's faults where it refuses what the command took for valid", async () => {
    const faults = [{ path: 'model', expected: 'a model that is configured', got: '"a/b"' }];
    await using server = await startTinyGateway((response) =>
      sendProblem(response, 400, { type: 'InvalidTask', title: 'not valid', faults }),
    );
    await using shell = await openShell();
    const { code, stderr } = await shell.weir([
      'submit',
      'x',
      '--model',
      'a/b',
      '--no-wait',
      '--url',
      server.url,
    ]);
    expect(code).toBe(1);
    expect(stderr).toContain('  model: expected a model that is configured, got "a/b"');
  });

  it('ships twelve tasks that are valid', async () => {
    await using server = await gatewayOfOneTask({ status: 'completed' });
    await using shell = await openShell();
    const file = fileURLToPath(new URL('../../examples/tasks.jsonl', import.meta.url));
    const { code, stdout } = await shell.weir(['submit', '--file', file, '--no-wait', '--url', server.url]);
    expect(code).toBe(0);
    expect(stdout.trim().split('\n')).toHaveLength(12);
  });
});

describe('weir tail', () => {
  it('writes the text to standard output and the rest beside it', async () => {
    await using server = await gatewayOfOneTask({ status: 'completed' });
    await using shell = await openShell();
    const { code, stdout, stderr } = await shell.weir(['tail', 'task-1', '--url', server.url]);
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'Hel[31mlo.\n' });
    expect(stderr).toContain('· call_started  simulated/small');
    expect(stderr).toContain('· stream_end  completed');
  });

  it('goes on by itself when the connection is cut', async () => {
    await using server = await startTinyGateway((response, _, count) => {
      openStream(response);
      if (count > 0) {
        sendEvent(response, 3, 'call_delta', { data: { text: 'two' } });
        sendEvent(response, 4, 'stream_end', { data: { status: 'failed' } });
        return;
      }
      sendEvent(response, 2, 'call_delta', { data: { text: 'one ' } });
      response.write(': cut', () => response.destroy());
    });
    await using shell = await openShell();
    const { code, stdout } = await shell.weir(['tail', 'task-1', '--url', server.url]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: 'one two\n' });
    expect(server.asked[1]?.headers['last-event-id']).toBe('1-2');
  });

  it('prints raw events with --json', async () => {
    await using server = await gatewayOfOneTask({ status: 'completed' });
    await using shell = await openShell();
    const { stdout } = await shell.weir(['tail', 'task-1', '--json', '--url', server.url]);
    expect(
      stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).seq),
    ).toEqual([1, 2, 3, 4, 5, 6]);
  });
});

describe('reports', () => {
  it('lists tasks over several pages up to the limit', async () => {
    await using server = await startTinyGateway((response, { path }) =>
      path.includes('cursor=next')
        ? sendJson(response, 200, { tasks: [taskView('b')], next: 'more' })
        : sendJson(response, 200, { tasks: [taskView('a')], next: 'next' }),
    );
    await using shell = await openShell();
    const { stdout } = await shell.weir(['tasks', '--user', 'ada', '--limit', '2', '--url', server.url]);
    expect(stdout).toMatch(/^task +status/);
    expect(stdout).toMatch(/\na +completed +ada +simulated\/small +150 +0\.0012 +2026-01-02 03:04:05\nb /);
    expect(server.asked.map(({ path }) => path)).toEqual([
      '/api/v1/tasks?user=ada&limit=2',
      '/api/v1/tasks?user=ada&limit=1&cursor=next',
    ]);
  });

  it('refuses a status that no task has', async () => {
    await using shell = await openShell();
    const { code, stderr } = await shell.weir([
      'tasks',
      '--status',
      'sleeping',
      '--url',
      'http://127.0.0.1:9',
    ]);
    expect(code).toBe(1);
    expect(stderr).toContain('--status is one of queued, running');
  });
});

describe('weir cancel', () => {
  it('says that a task has ended already', async () => {
    await using server = await gatewayOfOneTask({ status: 'completed' });
    await using shell = await openShell();
    const { code, stderr } = await shell.weir(['cancel', 'task-1', '--url', server.url]);
    expect(code).toBe(1);
    expect(stderr).toContain('no task with the id task-1 is running');
    expect(server.asked.every(({ method }) => method === 'GET')).toBe(true);
  });
});

describe('over Temporal', () => {
  it('starts a task, saves its history the same twice, and cancels it', async () => {
    await using shell = await openShell();
    const prefix = `t-${randomBytes(6).toString('hex')}`;
    const env = { TEMPORAL_ADDRESS: inject('servers').temporal, WEIR_QUEUE_PREFIX: prefix };
    const taskId = `task-${prefix}`;
    const submitted = await shell.weir(['submit', 'hello', '--id', taskId, '--no-wait'], env);
    expect(submitted).toEqual({ code: 0, stdout: `${taskId}\n`, stderr: '' });
    const again = await shell.weir(['submit', 'hello', '--id', taskId, '--no-wait'], env);
    expect(again.code).toBe(1);
    expect(again.stderr).toContain(`a task with the id ${taskId} is running`);
    const path = join(shell.folder, 'history.json');
    const save = () => shell.weir(['replay', '--save', taskId, '--out', path], env);
    expect((await save()).code).toBe(0);
    const first = await readFile(path, 'utf8');
    await save();
    expect(await readFile(path, 'utf8')).toBe(first);
    expect(JSON.parse(first).events[0].workflowExecutionStartedEventAttributes.workflowType.name).toBe(
      'runTask',
    );
    const missing = await shell.weir(['replay', '--save', 'nobody', '--out', path], env);
    expect(missing.stderr).toBe('weir: Temporal has no task with the id nobody\n');
    expect((await shell.weir(['cancel', taskId], env)).stdout).toBe(`${taskId} is asked to stop\n`);
  });
});

describe('weir replay', () => {
  const histories = fileURLToPath(new URL('../histories/', import.meta.url));

  it('replays histories and names the one that was not made by this code', { timeout: 90_000 }, async () => {
    await using shell = await openShell();
    const folder = join(shell.folder, 'histories');
    await mkdir(folder);
    await cp(join(histories, 'happy.json'), join(folder, 'good.json'));
    const good = await shell.weir(['replay', '--dir', folder]);
    expect({ code: good.code, stdout: good.stdout }).toEqual({
      code: 0,
      stdout: '✓ good.json\n1 replayed\n',
    });
    const text = await readFile(join(histories, 'happy.json'), 'utf8');
    expect(text).toContain('"callModel"');
    await writeFile(join(folder, 'tampered.json'), text.replaceAll('"callModel"', '"somethingElse"'));
    await writeFile(join(folder, 'broken.json'), '{"events": [');
    await writeFile(join(folder, 'empty.json'), '{}');
    const bad = await shell.weir(['replay', '--dir', folder]);
    expect(bad.code).toBe(1);
    expect(bad.stdout).toMatch(/✗ broken\.json: no history/);
    expect(bad.stdout).toMatch(/✗ empty\.json: no history/);
    expect(bad.stdout).toContain('✓ good.json\n');
    expect(bad.stdout).toMatch(/✗ tampered\.json: .*somethingElse/);
    expect(bad.stdout).toContain('3 of 4 did not replay');
  });

  it('takes a folder without histories for a mistake', async () => {
    await using shell = await openShell();
    expect(await shell.weir(['replay', '--dir', '.'])).toEqual({
      code: 1,
      stdout: '',
      stderr: 'weir: . holds no histories (*.json)\n',
    });
    expect((await shell.weir(['replay', '--dir', 'nowhere'])).stderr).toContain('nowhere cannot be read');
  });
});

describe('processes', () => {
  it('migrates a fresh schema, and then has nothing to do', async () => {
    const { postgres } = inject('servers');
    const schema = `t_${randomBytes(6).toString('hex')}`;
    await using shell = await openShell();
    const env = { DATABASE_URL: postgres, WEIR_POSTGRES_SCHEMA: schema };
    const client = new pg.Client({ connectionString: postgres });
    await client.connect();
    try {
      const first = await shell.weir(['migrate'], env);
      expect(first.code).toBe(0);
      expect(first.stdout).toMatch(/^applied \S+\n/);
      expect(await shell.weir(['migrate'], env)).toEqual({ code: 0, stdout: 'nothing to do\n', stderr: '' });
      await client.query(`select task_id from ${schema}.tasks`);
    } finally {
      await client.query(`drop schema if exists ${schema} cascade`);
      await client.end();
    }
  });

  it('says in one line that there is no database', async () => {
    await using shell = await openShell();
    const { code, stdout, stderr } = await shell.weir(['migrate'], {
      DATABASE_URL: 'postgres://127.0.0.1:9/x',
    });
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/^weir: the schema could not be brought up to date: .*ECONNREFUSED.*\n$/);
  });

  it('bundles the workflows into one file', { timeout: 60_000 }, async () => {
    await using shell = await openShell();
    const { code } = await shell.weir(['bundle', '--out', 'workflows.js']);
    expect(code).toBe(0);
    expect(await readFile(join(shell.folder, 'workflows.js'), 'utf8')).toContain('runTask');
    const wrong = await shell.weir(['bundle', '--out', 'no/such/folder/workflows.js']);
    expect(wrong.code).toBe(1);
    expect(wrong.stderr).toContain('cannot be written');
  });

  it("joins the stack that runs here as a worker, and ends with the worker's code on a signal", {
    timeout: 60_000,
  }, async () => {
    const servers = inject('servers');
    const schema = `t_${randomBytes(6).toString('hex')}`;
    await using shell = await openShell();
    await mkdir(join(shell.folder, '.weir'));
    await writeFile(
      join(shell.folder, '.weir/stack.json'),
      JSON.stringify({ ...servers, namespace: 'default' }),
    );
    const { child, output, done } = shell.start(['worker'], {
      WEIR_POSTGRES_SCHEMA: schema,
      WEIR_REDIS_KEY_PREFIX: schema,
      WEIR_QUEUE_PREFIX: schema,
    });
    await eventually(() => expect(output()).toContain('worker is ready'), 45_000);
    child.kill('SIGTERM');
    expect((await done).code).toBe(0);
  });

  it("passes on a worker's refusal of its settings", async () => {
    await using shell = await openShell();
    const { code, stderr } = await shell.weir(['worker'], { METRICS_PORT: 'many' });
    expect(code).toBe(1);
    expect(stderr).toContain('METRICS_PORT');
  });
});
