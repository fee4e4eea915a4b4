import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  findAddresses,
  joiningEnvironment,
  requireAny,
  requireGateway,
  requireTemporal,
} from '../../src/cli/addresses.ts';

const STACK = {
  gateway: 'http://127.0.0.1:8080',
  temporal: '127.0.0.1:7233',
  namespace: 'default',
  postgres: 'postgres://127.0.0.1:5432/x',
  redis: 'redis://127.0.0.1:6379',
  provider: 'http://127.0.0.1:9000',
  adminKey: 'admin-secret',
};

let folder = '';
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-addresses-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const withEnv = (variables: Record<string, string> = {}) => ({
  variables: { WEIR_STATE_DIR: folder, ...variables },
});

async function writeStack(content: unknown = STACK): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeFile(
    join(folder, 'stack.json'),
    typeof content === 'string' ? content : JSON.stringify(content),
  );
}

describe('findAddresses', () => {
  it('takes both ways in from the running stack, its key with them', async () => {
    await writeStack();
    const { gateway, temporal } = findAddresses(
      {},
      withEnv({ TEMPORAL_TLS: 'true', TEMPORAL_API_KEY: 'other' }),
    );
    expect(gateway).toEqual({ url: STACK.gateway, apiKey: 'admin-secret' });
    expect(temporal?.environment).toEqual({
      WEIR_STATE_DIR: folder,
      TEMPORAL_ADDRESS: '127.0.0.1:7233',
      TEMPORAL_NAMESPACE: 'default',
    });
  });

  it('takes flags before the environment', () => {
    const flags = { url: 'http://a', apiKey: 'flag', temporal: 't:1' };
    const found = findAddresses(
      flags,
      withEnv({ WEIR_URL: 'http://b', WEIR_API_KEY: 'env', TEMPORAL_ADDRESS: 't:2', TEMPORAL_TLS: 'true' }),
    );
    expect(found.gateway).toEqual({ url: 'http://a', apiKey: 'flag' });
    expect(found.temporal?.environment).toMatchObject({ TEMPORAL_ADDRESS: 't:1', TEMPORAL_TLS: 'true' });
  });

  it("never sends the stack's key, nor starts tasks in its Temporal, when another gateway is named", async () => {
    await writeStack();
    const found = findAddresses({ url: 'https://elsewhere.example' }, withEnv());
    expect(found.gateway).toEqual({ url: 'https://elsewhere.example' });
    expect(found.temporal).toBeUndefined();
  });

  it('does not look for tasks in the gateway of the stack when another Temporal is named', async () => {
    await writeStack();
    const found = findAddresses({}, withEnv({ TEMPORAL_ADDRESS: 'elsewhere:7233' }));
    expect(found.gateway).toBeUndefined();
    expect(findAddresses({}, withEnv({ TEMPORAL_PROFILE: 'cloud' })).gateway).toBeUndefined();
  });

  it('takes what is left out from the stack when the address given is its own', async () => {
    await writeStack();
    const byUrl = findAddresses({ url: 'http://localhost:8080/' }, withEnv());
    expect(byUrl.gateway?.apiKey).toBe('admin-secret');
    expect(byUrl.temporal?.environment['TEMPORAL_ADDRESS']).toBe('127.0.0.1:7233');
    expect(findAddresses({ temporal: 'localhost:7233' }, withEnv()).gateway?.url).toBe(STACK.gateway);
  });

  it('names every place where an address could have been', () => {
    const found = findAddresses({}, withEnv());
    const where = join(folder, 'stack.json');
    for (const [require, names] of [
      [requireGateway, ['--url', 'WEIR_URL', '--api-key', 'WEIR_API_KEY', where]],
      [requireTemporal, ['--temporal', 'TEMPORAL_ADDRESS', where]],
      [requireAny, ['--url', 'WEIR_URL', '--temporal', 'TEMPORAL_ADDRESS', where]],
    ] as const)
      for (const name of names) expect(() => require(found, withEnv())).toThrow(name);
  });

  it('says that a file of the stack is no JSON', async () => {
    await writeStack('{"gateway"');
    expect(() => findAddresses({}, withEnv())).toThrow('stack.json is no JSON');
    await writeStack('"text"');
    expect(() => findAddresses({}, withEnv())).toThrow('stack.json holds no addresses');
  });
});

describe('joiningEnvironment', () => {
  it('fills in the servers of the stack and leaves its ports to it', async () => {
    await writeStack();
    expect(joiningEnvironment(withEnv({ OTHER: 'kept' })).valueOf()).toEqual({
      WEIR_STATE_DIR: folder,
      OTHER: 'kept',
      TEMPORAL_ADDRESS: STACK.temporal,
      TEMPORAL_NAMESPACE: 'default',
      DATABASE_URL: STACK.postgres,
      REDIS_URL: STACK.redis,
      SIMULATED_BASE_URL: 'http://127.0.0.1:9000/v1',
      METRICS_PORT: '0',
      WEIR_GATEWAY_PORT: '0',
      WEIR_AUTH: 'keys',
      WEIR_ADMIN_KEY: 'admin-secret',
    });
  });

  it('turns keys off where the stack has none', async () => {
    const { adminKey: _, ...open } = STACK;
    await writeStack(open);
    const environment = joiningEnvironment(withEnv());
    expect(environment['WEIR_AUTH']).toBe('off');
    expect(environment['WEIR_ADMIN_KEY']).toBeUndefined();
  });

  it('leaves alone what the environment names, in a file too', async () => {
    await writeStack();
    const given = {
      DATABASE_URL_FILE: '/run/secrets/database',
      REDIS_URL: 'redis://own',
      METRICS_PORT: '2112',
      WEIR_ADMIN_KEY_FILE: '/run/secrets/key',
      TEMPORAL_ADDRESS: 'own:7233',
    };
    const environment = joiningEnvironment(withEnv(given));
    expect(environment).toMatchObject(given);
    for (const name of ['DATABASE_URL', 'WEIR_ADMIN_KEY', 'WEIR_AUTH', 'TEMPORAL_NAMESPACE'])
      expect(environment[name]).toBeUndefined();
  });

  it('is the environment itself without a stack', () => {
    expect(joiningEnvironment(withEnv({ A: 'b' }))).toEqual({ WEIR_STATE_DIR: folder, A: 'b' });
  });
});
