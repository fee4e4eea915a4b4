import { EventEmitter } from 'node:events';
import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { expect, it, onTestFinished } from 'vitest';
import { openLiveConfig } from '../src/config/live-config.ts';
import { createLogger } from '../src/log.ts';
import { createMetrics } from '../src/metrics.ts';
import { type ReloadTimes, startReloading } from '../src/reload.ts';
import { folderWith } from './config/overlay.ts';
import { eventually } from './support/eventually.ts';

/** Events alone must do: nobody looks by itself within a test. */
const EVENTS_ONLY: ReloadTimes = { settleMs: 5, lookEveryMs: 3_600_000 };

function start(configDir: string, times: ReloadTimes = EVENTS_ONLY) {
  const live = openLiveConfig({ env: {}, configDir });
  const lines: string[] = [];
  const stream = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk));
      done();
    },
  });
  const log = createLogger({ level: 'info', format: 'json', service: 'test', stream });
  const metrics = createMetrics();
  const signals = new EventEmitter() as NodeJS.Process & EventEmitter; // only its two methods are used
  const reloading = startReloading({ live, meter: metrics.config, log, signals }, times);
  onTestFinished(() => reloading[Symbol.asyncDispose]());
  const rpm = () => live.config.limits.rates.providers['simulated']?.rpm;
  return {
    live,
    log,
    lines,
    rpm,
    hangUp: () => signals.emit('SIGHUP'),
    listeners: () => signals.listenerCount('SIGHUP'),
    reloading,
    becomes: (value: number) => eventually(() => expect(rpm()).toBe(value)),
    metric: async (name: string, file: string) => {
      const found = (await metrics.registry.getMetricsAsJSON()).find((one) => one.name === `weir_${name}`);
      return found?.values.find(({ labels }) => labels['file'] === file)?.value;
    },
  };
}

const RPM = (rpm: number | string) => `rates:\n  providers:\n    simulated: {rpm: ${rpm}}\n`;

it('takes over a file that is written, replaced and written for the first time', async () => {
  const folder = folderWith({ 'limits.yaml': RPM(7) });
  const { becomes, live, metric } = start(folder);
  writeFileSync(join(folder, 'limits.yaml'), RPM(8));
  await becomes(8);
  writeFileSync(join(folder, 'new'), RPM(9));
  renameSync(join(folder, 'new'), join(folder, 'limits.yaml'));
  await becomes(9);
  writeFileSync(join(folder, 'default.yaml'), 'breakers: {llm: {enabled: false}}\n');
  await eventually(() => expect(live.config.breakers.llm.enabled).toBe(false));
  expect(await metric('config_reload_total', 'limits.yaml')).toBe(2);
  expect(await metric('config_reload_total', 'default.yaml')).toBe(1);
});

it('takes over files that Kubernetes exchanges as a whole', async () => {
  const folder = folderWith({});
  const version = (name: string, rpm: number, enabled: boolean) => {
    mkdirSync(join(folder, name));
    writeFileSync(join(folder, name, 'limits.yaml'), RPM(rpm));
    writeFileSync(join(folder, name, 'default.yaml'), `breakers: {llm: {enabled: ${enabled}}}\n`);
    symlinkSync(name, join(folder, '..data_tmp'));
    renameSync(join(folder, '..data_tmp'), join(folder, '..data'));
  };
  version('..2026_01', 7, true);
  for (const name of ['limits.yaml', 'default.yaml']) symlinkSync(join('..data', name), join(folder, name));
  const { becomes, live, rpm } = start(folder);
  expect([rpm(), live.config.breakers.llm.enabled]).toEqual([7, true]);
  version('..2026_02', 8, false);
  await becomes(8);
  expect(live.config.breakers.llm.enabled).toBe(false);
});

it('looks by itself where a change makes no event', async () => {
  const [first, second] = [folderWith({ 'limits.yaml': RPM(7) }), folderWith({ 'limits.yaml': RPM(8) })];
  const linked = join(folderWith({}), 'config');
  symlinkSync(first, linked);
  const { becomes } = start(linked, { settleMs: 5, lookEveryMs: 20 });
  symlinkSync(second, `${linked}-next`);
  // What is watched is the folder that the link led to.
  renameSync(`${linked}-next`, linked);
  await becomes(8);
});

it('reads again on SIGHUP, and listens to it no longer than it runs', async () => {
  const folder = folderWith({ 'limits.yaml': RPM(7) });
  const { hangUp, lines, listeners, reloading, rpm } = start(folder, { ...EVENTS_ONLY, settleMs: 3_600_000 });
  writeFileSync(join(folder, 'limits.yaml'), RPM(8));
  hangUp();
  expect(rpm()).toBe(8);
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    {
      level: 'info',
      message: 'the configuration changed',
      cause: 'SIGHUP',
      settings: ['limits.rates.providers.simulated.rpm'],
    },
  ]);
  hangUp();
  expect(lines[1]).toContain('nothing changed');
  await reloading[Symbol.asyncDispose]();
  expect(listeners()).toBe(0);
});

it('keeps everything at a fault, tells path and line, and raises the metric until it is mended', async () => {
  const folder = folderWith({ 'limits.yaml': RPM(7) });
  const { becomes, lines, metric, rpm } = start(folder);
  writeFileSync(join(folder, 'limits.yaml'), RPM('many'));
  await eventually(async () => expect(await metric('config_reload_failed', 'limits.yaml')).toBe(1));
  expect(await metric('config_reload_failed', 'models.yaml')).toBe(0);
  expect(rpm()).toBe(7);
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    {
      level: 'error',
      message: 'the configuration is at fault, everything stays as it was',
      faults: [
        `rates.providers.simulated.rpm: expected a whole number from 1 to 1000000000000, or unlimited, got "many" (${folder}/limits.yaml:3)`,
      ],
    },
  ]);
  // Another file is good and new, but they hold together.
  writeFileSync(join(folder, 'default.yaml'), 'log: {level: warn}\n');
  await eventually(() => expect(lines).toHaveLength(2));
  writeFileSync(join(folder, 'limits.yaml'), RPM(8));
  await becomes(8);
  expect(await metric('config_reload_failed', 'limits.yaml')).toBe(0);
});

it('sets the level of the log, and says what needs a new start', async () => {
  const folder = folderWith({});
  const { hangUp, lines, log } = start(folder, { ...EVENTS_ONLY, settleMs: 3_600_000 });
  const child = log.child({ part: 'child' });
  child.debug('too fine');
  writeFileSync(join(folder, 'default.yaml'), 'log: {level: debug}\nmetrics: {port: 1}\n');
  hangUp();
  child.debug('seen');
  expect(child.isDebugEnabled).toBe(true);
  writeFileSync(join(folder, 'default.yaml'), 'log: {level: error}\n');
  hangUp();
  log.warn('too fine again');
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    { level: 'warn', message: 'settings changed that need a new start', settings: ['metrics.port'] },
    { message: 'the configuration changed', settings: ['log.level'] },
    { message: 'seen', part: 'child' },
  ]);
});
