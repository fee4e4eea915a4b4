import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { liveFields, openLiveConfig } from '../../src/config/live-config.ts';
import { ConfigError, type ConfigSources } from '../../src/config.ts';
import { folderWith } from './overlay.ts';

const PRICED = (input: number) =>
  `models: {simulated/small: {prices: [{validFrom: 2025-01-01, input: ${input}, output: 1}]}}\n`;
const RPM = (rpm: number) => `rates: {providers: {simulated: {rpm: ${rpm}}}}\n`;

/** A configuration over a folder, whose files can be written anew. */
function open(files: Readonly<Record<string, string>> = {}, env: ConfigSources['env'] = {}) {
  const configDir = folderWith(files);
  const live = openLiveConfig({ env, configDir });
  return {
    live,
    config: live.config,
    write: (name: string, text: string) => writeFileSync(join(configDir, name), text),
    remove: (name: string) => rmSync(join(configDir, name)),
    configDir,
  };
}

describe('openLiveConfig', () => {
  it('takes over limits, prices, breakers and the log level, all at once and under the same object', () => {
    const { live, config, write } = open();
    const before = { hash: config.modelsHash, breakers: config.breakers, log: config.log };
    write('limits.yaml', `${RPM(7)}budgets: {user: [{unit: tokens, amount: 5}]}\n`);
    write('models.yaml', PRICED(9));
    write('default.yaml', 'log: {level: debug}\nbreakers: {llm: {timeout: 7s}}\n');
    expect(config.limits.rates.providers['simulated']?.rpm).toBe(6_000);
    expect(live.reload()).toEqual({
      kind: 'read',
      files: ['limits.yaml', 'models.yaml', 'default.yaml'],
      ignored: [],
      changed: expect.arrayContaining([
        'limits.rates.providers.simulated.rpm',
        'limits.budgets.user',
        'models.simulated/small.prices',
        'breakers.llm.timeout',
        'log.level',
      ]),
    });
    expect(config.limits.rates.providers['simulated']?.rpm).toBe(7);
    expect(config.limits.budgets.user).toMatchObject([{ unit: 'tokens', amount: 5n }]);
    expect(config.models['simulated/small']?.prices[0]?.input).toBe(9_000_000_000n);
    expect(config.modelsHash).not.toBe(before.hash);
    expect(config.breakers.llm).toEqual({ ...before.breakers.llm, timeoutMs: 7_000 });
    expect(config.log).toEqual({ ...before.log, level: 'debug' });
  });

  it('keeps what needs a new start, and names it once', () => {
    const { live, config, write } = open();
    const text = 'metrics: {port: 1}\ncall: {lease: 9s}\nlog: {level: warn, format: json}\n';
    write('default.yaml', text);
    const port = config.metrics.port;
    expect(live.reload()).toMatchObject({
      changed: ['log.level'],
      ignored: ['log.format', 'metrics.port', 'call.lease'],
    });
    expect(config).toMatchObject({ metrics: { port }, call: { leaseMs: 10_000 }, log: { level: 'warn' } });
    write('default.yaml', `${text}breakers: {llm: {enabled: false}}\n`);
    expect(live.reload()).toMatchObject({ changed: ['breakers.llm.enabled'], ignored: [] });
    // Back to what the process runs with: there is nothing to tell.
    write('default.yaml', 'log: {level: warn}\nbreakers: {llm: {enabled: false}}\n');
    expect(live.reload()).toMatchObject({ changed: [], ignored: [] });
  });

  it.each([
    ['no YAML', { 'limits.yaml': 'rates:\n  providers: [\n' }, '', /\/limits\.yaml:[23]$/],
    [
      'an unknown key',
      { 'default.yaml': 'log:\n  level: debug\n  levle: info\n' },
      'log.levle',
      /\/default\.yaml:3$/,
    ],
    [
      'a wrong type',
      { 'models.yaml': `${PRICED(9)}tiers:\n  small: 12\n` },
      'tiers.small',
      /\/models\.yaml:3$/,
    ],
    [
      'a model that is not there',
      { 'models.yaml': 'models: {simulated/small: null}\n' },
      'tiers.small',
      /\/models\.yaml:\d+$/,
    ],
  ])('changes nothing for a file with %s, and names path and line', (_, files, key, source) => {
    const { live, config, write } = open();
    // A good change beside the bad one: all three files hold together or not at all.
    for (const name of ['default.yaml', 'models.yaml', 'limits.yaml']) write(name, GOOD[name] ?? '');
    for (const [name, text] of Object.entries(files)) write(name, text);
    const told: unknown[] = [];
    live.onReload((change) => told.push(change));
    const before = { ...config };
    const outcome = live.reload();
    if (outcome.kind !== 'refused') throw new Error('the files were taken');
    expect(outcome.faults.some((fault) => fault.key === key && source.test(fault.source))).toBe(true);
    expect({ ...config }).toEqual(before);
    expect(told).toEqual([]);
    for (const name of ['default.yaml', 'models.yaml', 'limits.yaml']) write(name, GOOD[name] ?? '');
    expect(live.reload()).toMatchObject({
      kind: 'read',
      files: ['limits.yaml', 'models.yaml', 'default.yaml'],
    });
    expect(config.limits.rates.providers['simulated']?.rpm).toBe(7);
    expect(told).toHaveLength(1);
  });

  it('keeps the environment above a file that changes', () => {
    const { live, config, write } = open({}, { RATE_SIMULATED_RPM: '3', CB_LLM_TIMEOUT: '9s' });
    write('limits.yaml', RPM(7));
    write('default.yaml', 'breakers: {llm: {timeout: 7s}}\n');
    expect(live.reload()).toMatchObject({ kind: 'read', changed: [] });
    expect(config.limits.rates.providers['simulated']?.rpm).toBe(3);
    expect(config.breakers.llm.timeoutMs).toBe(9_000);
  });

  it('goes back to the shipped settings when a file is removed, and keeps all when the folder is', () => {
    const { live, config, remove, configDir } = open({ 'limits.yaml': RPM(7), 'models.yaml': PRICED(9) });
    remove('limits.yaml');
    live.reload();
    expect(config.limits.rates.providers['simulated']?.rpm).toBe(6_000);
    renameSync(configDir, `${configDir}-away`);
    const outcome = live.reload();
    renameSync(`${configDir}-away`, configDir);
    expect(outcome).toMatchObject({ kind: 'refused', faults: [{ key: 'WEIR_CONFIG_DIR' }] });
    expect(config.models['simulated/small']?.prices[0]?.input).toBe(9_000_000_000n);
  });

  it('tells listeners of before and after, and nobody where nothing changed', () => {
    const { live, write } = open();
    const told: (readonly (number | undefined)[])[] = [];
    live.onReload(({ before, after }) =>
      told.push([before, after].map(({ limits }) => limits.rates.providers['simulated']?.rpm)),
    );
    expect(live.reload()).toEqual({ kind: 'read', changed: [], files: [], ignored: [] });
    write('limits.yaml', RPM(7));
    live.reload();
    write('limits.yaml', `# the same\n${RPM(7)}`);
    expect(live.isOutdated()).toBe(true);
    live.reload();
    expect(live.isOutdated()).toBe(false);
    expect(told).toEqual([[6_000, 7]]);
  });

  it('takes a new key of a provider from its file, without showing it', () => {
    const folder = folderWith({ key: 'old-key\n' });
    const { live, config } = open({}, { OPENAI_API_KEY_FILE: join(folder, 'key') });
    writeFileSync(join(folder, 'key'), 'new-key\n');
    const outcome = live.reload();
    expect(JSON.stringify(outcome)).not.toContain('-key');
    expect(JSON.stringify(config.providers['openai'])).toContain('new-key');
  });

  it('does not open what is at fault', () => {
    expect(() => open({ 'limits.yaml': RPM(-1) })).toThrow(ConfigError);
  });
});

const GOOD: Readonly<Record<string, string>> = {
  'default.yaml': 'log: {level: debug}\n',
  'models.yaml': PRICED(9),
  'limits.yaml': RPM(7),
};

describe('liveFields', () => {
  it('reads each field anew, and copies as it is now', () => {
    let present = { a: 1, b: 'x' };
    const view = liveFields(() => present);
    const copy = { ...view };
    present = { a: 2, b: 'y' };
    expect([view.a, view.b, { ...view }, copy]).toEqual([2, 'y', { a: 2, b: 'y' }, { a: 1, b: 'x' }]);
  });
});
