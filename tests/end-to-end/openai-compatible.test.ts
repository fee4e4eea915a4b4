import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { startSimulatedProvider } from '../../dev/simulated-provider/server.ts';
import { formatUsd } from '../../src/task/money.ts';
import { openFleet } from '../support/fleet.ts';

const MODELS = `
models:
  openai/house-model:
    tier: small
    contextWindow: 100000
    maxOutputTokens: 1000
    prices: [{validFrom: 2026-01-01, input: 3, output: 7}]
tiers:
  small: [openai/house-model]
`;

it('runs a task against any OpenAI-compatible server, at the prices of a models.yaml of its own', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-config-'));
  await using server = await startSimulatedProvider();
  try {
    await writeFile(join(folder, 'models.yaml'), MODELS);
    await using fleet = await openFleet({
      env: {
        OPENAI_API_KEY: 'a-key',
        OPENAI_BASE_URL: `${server.url}/v1`,
        WEIR_CONFIG_DIR: folder,
        // The shared provider of the fleet is not configured here.
        SIMULATED_BASE_URL: '',
      },
    });
    await fleet.startWorker();
    const { taskId } = await fleet.tasks.start({
      userId: 'user',
      query: 'What is a weir? A weir is a low dam.',
    });
    const result = await fleet.tasks.result(taskId);
    expect(result).toMatchObject({ status: 'completed', model: 'openai/house-model' });
    const [request] = server.requests();
    expect(request).toMatchObject({
      path: '/v1/chat/completions',
      model: 'house-model',
      outcome: 'completed',
    });
    const due =
      BigInt(request?.usage.inputTokens ?? 0) * 3_000n + BigInt(request?.usage.outputTokens ?? 0) * 7_000n;
    expect(result.costUsd).toBe(formatUsd(due));
    expect(fleet.provider.requests()).toEqual([]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
