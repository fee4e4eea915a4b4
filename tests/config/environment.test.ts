import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { errorOf, faultsOf, folderWith, load } from './overlay.ts';

const NAMES = [
  'WEIR_ADMIN_KEY',
  'REDIS_URL',
  'DATABASE_URL',
  'OPENAI_API_KEY',
  'ANTHROPIC_API_KEY',
  'GOOGLE_API_KEY',
  'TEMPORAL_API_KEY',
];

describe('secrets', () => {
  it('come from files, without their closing line break', () => {
    const folder = folderWith({
      admin: 'k-1\n',
      redis: 'redis://h\r\n',
      postgres: 'postgres://h/d',
      openai: 'sk-1\n',
      temporal: 't-1\n',
    });
    const config = load({
      env: {
        WEIR_ADMIN_KEY_FILE: join(folder, 'admin'),
        REDIS_URL_FILE: join(folder, 'redis'),
        DATABASE_URL_FILE: join(folder, 'postgres'),
        OPENAI_API_KEY_FILE: join(folder, 'openai'),
        TEMPORAL_API_KEY_FILE: join(folder, 'temporal'),
      },
    });
    expect(config.gateway.adminKey).toBe('k-1');
    expect(config.redis.url).toBe('redis://h');
    expect(config.postgres.url).toBe('postgres://h/d');
    expect(config.providers['openai']).toMatchObject({ apiKeys: ['sk-1'], available: true });
    expect(config.temporal.connection).toMatchObject({ apiKey: 't-1', tls: true });
  });

  it.each(NAMES)('%s is refused when its file is given as well', (name) => {
    const path = join(folderWith({ secret: 'redis://a' }), 'secret');
    expect(faultsOf({ env: { [name]: 'redis://a', [`${name}_FILE`]: path } })).toEqual([
      expect.objectContaining({ expected: `one of ${name} and ${name}_FILE`, got: 'both' }),
    ]);
  });

  it.each(NAMES)('%s is refused when its file cannot be read', (name) => {
    const path = join(folderWith({}), 'absent');
    expect(faultsOf({ env: { [`${name}_FILE`]: path } })).toEqual([
      expect.objectContaining({
        expected: 'a readable file',
        got: `ENOENT for ${path}`,
        source: `environment ${name}_FILE`,
      }),
    ]);
  });

  it.each(NAMES)('%s is refused when its file holds more than a line or nothing', (name) => {
    for (const text of ['hush\nhush\n', 'hush\n\n', '\n', '']) {
      const error = errorOf({ env: { [`${name}_FILE`]: join(folderWith({ secret: text }), 'secret') } });
      expect(error.message).toContain('expected one line of text');
      expect(error.message).not.toContain('hush');
    }
  });

  it('are not shown by the faults they are in', () => {
    const env = {
      WEIR_ADMIN_KEY: 'hush hush',
      REDIS_URL: 'http://u:hush@h',
      DATABASE_URL: 'hush',
      OPENAI_BASE_URL: 'hush://u:hush@h',
      OPENAI_API_KEY: 'hush\nhush',
    };
    const files = {
      'default.yaml': 'gateway: {adminkey: hush}\nredis: {url: [hush]}\npostgres: hush\n',
      'models.yaml':
        'providers: {openai: {apiKey: hush}, other: {protocol: openai, apiKeyEnv: hush, baseUrl: "hush"}}\n',
    };
    const first = errorOf({ env });
    const second = errorOf({ files });
    expect(first.faults).toHaveLength(5);
    expect(second.faults).toHaveLength(6);
    expect(first.message + second.message).not.toContain('hush');
  });
});
