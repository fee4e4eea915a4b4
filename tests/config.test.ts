import { describe, expect, it } from 'vitest';
import { ConfigError, checkGatewayExposure, knownEnvironment, loadConfig } from '../src/config.ts';
import { errorOf, faultsOf, folderWith, load } from './config/overlay.ts';
import { ROWS } from './config/setting-rows.ts';

describe('loadConfig', () => {
  it('lets the environment win over files, and flags over the environment', () => {
    const files = { 'default.yaml': 'metrics: {port: 1, host: file}\n' };
    expect(load().metrics).toEqual({ host: '127.0.0.1', port: 2112 });
    expect(load({ files }).metrics).toEqual({ host: 'file', port: 1 });
    expect(load({ files, env: { METRICS_PORT: '2' } }).metrics).toEqual({ host: 'file', port: 2 });
    expect(load({ files, env: { METRICS_PORT: '2' }, flags: { 'metrics.port': 3 } }).metrics.port).toBe(3);
  });

  it('reads the folder that WEIR_CONFIG_DIR names', () => {
    const folder = folderWith({ 'default.yaml': 'metrics: {port: 5}\n' });
    expect(load({ env: { WEIR_CONFIG_DIR: folder } }).metrics.port).toBe(5);
  });

  it('takes an empty variable, an undefined flag and an empty section as not set', () => {
    const env = {
      METRICS_PORT: '',
      OPENAI_API_KEY: '',
      TEMPORAL_ADDRESS: '',
      RATE_OPENAI_RPM: '',
      WEIR_ADMIN_KEY_FILE: '',
    };
    const files = {
      'default.yaml': 'metrics:\n  # port: 1\n',
      'limits.yaml': '',
      'models.yaml': 'models:\n',
    };
    const config = load({ env, files, flags: { 'metrics.port': undefined } });
    expect(config).toEqual(load());
  });

  it('reads the environment of the process when it is given none', () => {
    expect(loadConfig().call.leaseMs).toBeGreaterThan(0);
  });

  it('freezes everything', () => {
    const config = load({ env: { TEMPORAL_TLS_SERVER_CA_CERT_DATA: 'PEM' } });
    const thawed: string[] = [];
    const visit = (value: unknown, path: string) => {
      if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return;
      if (!Object.isFrozen(value)) thawed.push(path);
      for (const [name, inner] of Object.entries(value)) visit(inner, `${path}.${name}`);
    };
    visit(config, 'config');
    expect(thawed).toEqual([]);
  });
});

describe('a configuration with faults', () => {
  it('names every fault of every place in one message', () => {
    const error = errorOf({
      files: {
        'default.yaml': 'log:\n  level: loud\nmetrics:\n  prot: 1\n',
        'models.yaml': 'models:\n  openai/gpt-5: {tier: huge}\n',
        'limits.yaml': 'rates: {providers: {openai: {rpm: -1}}}\n',
      },
      env: {
        METRICS_PORT: '12abc',
        RATE_NOBODY_RPM: '5',
        CB_REDIS_TIMEOUTS: '5s',
        OPENAI_BASE_URL: 'nowhere',
        TEMPORAL_TLS: 'yes',
      },
      flags: { 'gateway.port': 'x', nothing: 1 },
    });
    expect(error.faults.map((fault) => fault.key)).toEqual([
      'log.level',
      'metrics.prot',
      'metrics.port',
      'breakers',
      'gateway.port',
      'nothing',
      'models.openai/gpt-5.tier',
      'rates.providers.openai.rpm',
      'temporal.connection.tls',
    ]);
    const lines = error.message.split('\n');
    expect(lines[0]).toBe('the configuration has 9 faults:');
    expect(lines[1]).toMatch(
      /^ {2}log\.level: expected one of error, warn, info, debug, got "loud" \(\/.*\/default\.yaml:2\)$/,
    );
    expect(lines[3]).toBe(
      '  metrics.port: expected a whole number from 0 to 65535, got "12abc" (environment METRICS_PORT)',
    );
  });

  it('refuses a lease that ends before it is renewed, and tells where the renewal came from', () => {
    expect(faultsOf({ env: { WEIR_CALL_LEASE_RENEWAL: '10s' } })).toEqual([
      {
        key: 'call.leaseRenewal',
        expected: 'less than call.lease (10s)',
        got: '10s',
        source: 'environment WEIR_CALL_LEASE_RENEWAL',
      },
    ]);
    expect(faultsOf({ flags: { 'call.lease': '2s' } })[0]?.source).toMatch(/^default\.yaml:\d+$/);
  });
});

describe('checkGatewayExposure', () => {
  const check = (host: string, auth: 'keys' | 'off', adminKey: string | undefined) => () =>
    checkGatewayExposure({ auth, gateway: { host, adminKey } });

  it.each(['127.0.0.1', '127.8.8.8', 'localhost', 'LOCALHOST', '::1', '::ffff:127.0.0.1'])(
    'serves without keys on %s',
    (host) => {
      expect(check(host, 'off', undefined)).not.toThrow();
    },
  );

  it.each(['0.0.0.0', '::', '10.0.0.1', '192.168.1.2', 'example.com', '127.example.com', '::ffff:10.0.0.1'])(
    'refuses to serve without keys on %s',
    (host) => {
      expect(check(host, 'off', undefined)).toThrow(ConfigError);
      expect(check(host, 'off', 'k')).toThrow(/WEIR_AUTH and WEIR_GATEWAY_HOST/);
      expect(check(host, 'keys', undefined)).toThrow(/WEIR_ADMIN_KEY/);
      expect(check(host, 'keys', 'k')).not.toThrow();
    },
  );

  it('refuses keys without an admin key on loopback too, and says what to set', () => {
    expect(check('127.0.0.1', 'keys', undefined)).toThrow(
      /gateway\.adminKey: expected a key, since auth is "keys" .*WEIR_AUTH=off.*, got nothing \(environment WEIR_ADMIN_KEY or WEIR_ADMIN_KEY_FILE\)/,
    );
    expect(check('127.0.0.1', 'keys', 'k')).not.toThrow();
  });
});

describe('knownEnvironment', () => {
  it('holds the names of settings, secrets, providers, rates and Temporal', () => {
    const { has } = knownEnvironment();
    for (const { env } of ROWS) expect([env, has(env)]).toEqual([env, true]);
    for (const name of [
      'WEIR_CONFIG_DIR',
      'WEIR_ADMIN_KEY_FILE',
      'DATABASE_URL_FILE',
      'OPENAI_API_KEY',
      'OPENAI_API_KEY_FILE',
      'OPENAI_BASE_URL',
      'SIMULATED_BASE_URL',
      'RATE_OPENAI_RPM',
      'RATE_DEFAULT_TPM',
      'RATE_SMALL_TPM',
      'TEMPORAL_ADDRESS',
      'TEMPORAL_API_KEY_FILE',
      'TEMPORAL_GRPC_META_ANY_THING',
    ])
      expect([name, has(name)]).toEqual([name, true]);
    for (const name of [
      'METRICS_PROT',
      'METRICS_PORT_FILE',
      'RATE_NOBODY_RPM',
      'CB_REDIS_X',
      'PATH',
      'TEMPORAL_ADRESS',
    ])
      expect([name, has(name)]).toEqual([name, false]);
  });

  it('knows the providers of an overlay', () => {
    const folder = folderWith({
      'models.yaml':
        'providers: {my-own: {protocol: openai-compatible, baseUrlEnv: OWN_URL, apiKeyEnv: OWN_KEY}}\n',
    });
    const { has } = knownEnvironment(folder);
    expect(['OWN_URL', 'OWN_KEY', 'OWN_KEY_FILE', 'RATE_MY_OWN_RPM'].filter((name) => !has(name))).toEqual(
      [],
    );
    expect(knownEnvironment().has('OWN_KEY')).toBe(false);
  });
});
