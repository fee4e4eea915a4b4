// The provider as a process: ready line, signals, and one clear message for what cannot be done.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { startSimulatedProvider } from '../../../dev/simulated-provider/server.ts';

const MAIN = fileURLToPath(new URL('../../../dev/simulated-provider/main.ts', import.meta.url));

function run(...flags: string[]): { child: ChildProcess; output: { text: string } } {
  const child = spawn(process.execPath, [MAIN, ...flags], { stdio: ['ignore', 'pipe', 'pipe'] });
  const output = { text: '' };
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (data: Buffer) => (output.text += data.toString()));
  return { child, output };
}

test.each(['SIGTERM', 'SIGINT'] as const)(
  'says where it listens, serves, and exits 0 on %s with a stream open',
  async (signal) => {
    const { child, output } = run('--port', '0', '--rpm', '5', '--chunk-delay-ms', '60000');
    if (child.stdout === null) throw new Error('the child has no stdout');
    await once(child.stdout, 'data');
    const url = /^simulated provider listening on (http:\/\/127\.0\.0\.1:\d+)\n$/.exec(output.text)?.[1];
    const body = JSON.stringify({ model: 'm', stream: true, messages: [{ role: 'user', content: 'x' }] });
    const response = await fetch(`${url}/v1/chat/completions`, { method: 'POST', body });
    expect(response.headers.get('x-ratelimit-limit-requests')).toBe('5');
    const broken = response.text().catch(() => 'broken');
    const exited = once(child, 'exit');
    child.kill(signal);
    expect(await exited).toEqual([0, null]);
    expect(await broken).toBe('broken');
  },
);

test('says in one line that a port is taken', async () => {
  await using provider = await startSimulatedProvider();
  const { child, output } = run('--port', String(provider.port));
  expect(await once(child, 'close')).toEqual([1, null]);
  expect(output.text).toBe(
    `simulated provider: port ${provider.port} is taken: stop what listens there, or give another --port\n`,
  );
});

test.each([
  [['--port', 'x'], '--port must be a whole number'],
  [['--port', '0', '--rpm', '0'], "'rpm' must be"],
  [
    ['--port', '0', '--log-file', '/nowhere/at/all.jsonl'],
    'the log file /nowhere/at/all.jsonl cannot be written',
  ],
  [['--port', '0', '--nonsense'], 'nonsense'],
  [[], '--port is missing'],
])('exits with 1 and a message for %j', async (flags, message) => {
  const { child, output } = run(...flags);
  expect(await once(child, 'close')).toEqual([1, null]);
  expect(output.text).toContain(message);
  expect(output.text).not.toContain('    at ');
});
