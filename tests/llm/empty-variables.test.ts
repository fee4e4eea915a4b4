import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

it('takes an empty address of a provider as not set', async () => {
  const module = new URL('../../src/llm/models.ts', import.meta.url).href;
  const script = `await import(${JSON.stringify(module)}); process.stdout.write('loaded');`;
  const env = { OPENAI_BASE_URL: '', ANTHROPIC_BASE_URL: '' };
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
    env,
  });
  expect(stdout).toBe('loaded');
});
