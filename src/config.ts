// The configuration of a Weir process: read once, checked as a whole, frozen. The only file that reads the process's environment.
// A wrong setting never becomes a default: it stops the process with one message that names every fault.

import { statSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Environment, presentEnvironment } from './config/environment.ts';
import { ConfigError, type ConfigFault } from './config/fault.ts';
import { type Limits, readLimitsFile } from './config/limits-file.ts';
import { type ModelsFile, readModelsFile } from './config/models-file.ts';
import { type Provider, providerEnvironmentNames, readProviders } from './config/providers.ts';
import { rateEnvironment } from './config/rate-overrides.ts';
import { readSettings, type Settings, settingEnvironmentNames } from './config/settings.ts';
import {
  readTemporalTarget,
  TEMPORAL_ENVIRONMENT,
  TEMPORAL_METADATA_PREFIX,
  type TemporalTarget,
} from './config/temporal-connection.ts';
import { type LayeredFile, layFiles, readYamlFile, type YamlFile } from './config/yaml-file.ts';

export { ConfigError, type ConfigFault } from './config/fault.ts';
export {
  type Limits,
  notEnforced,
  type PlanLimit,
  planOfTenant,
  type RateLimit,
} from './config/limits-file.ts';
export type { Model } from './config/models-file.ts';
export type { Provider } from './config/providers.ts';

/** Everything that a process may be told, resolved: durations are integers in milliseconds, money is nano-USD. Deeply frozen. */
export type Config = Omit<Settings, 'temporal'> & {
  readonly temporal: Settings['temporal'] & TemporalTarget;
  /** By name, as models.yaml names them. */
  readonly providers: Readonly<Record<string, Provider>>;
  readonly models: ModelsFile['models'];
  readonly tiers: ModelsFile['tiers'];
  /** Stored with each attempt: 16 hex digits that change when a model or a price changes. */
  readonly modelsHash: string;
  readonly limits: Limits;
};

export type ConfigSources = {
  /** Instead of the process's own environment. */
  readonly env?: Environment;
  /** A folder whose files are laid over the shipped ones, instead of WEIR_CONFIG_DIR. */
  readonly configDir?: string | undefined;
  /** By dotted key (`metrics.port`), above everything else. */
  readonly flags?: Readonly<Record<string, unknown>>;
};

const FOLDER_VARIABLE = 'WEIR_CONFIG_DIR';

/** Where the shipped files are. */
const SHIPPED_FOLDER = fileURLToPath(new URL('../config/', import.meta.url));

/**
 * Reads files, environment and flags.
 * @throws ConfigError with all faults at once
 */
export function loadConfig(sources: ConfigSources = {}): Config {
  const env = presentEnvironment(sources.env ?? processEnvironment());
  const faults: ConfigFault[] = [];
  const files = readFiles(sources.configDir ?? env[FOLDER_VARIABLE], faults);
  const settings = files && readSettings({ ...files.settings, env, flags: sources.flags ?? {} }, faults);
  const models = files && readModelsFile(files.models, ownNames(), faults);
  const providers = models && readProviders(models.providers, env, faults);
  const providerNames = models && Object.keys(models.providers);
  const limits = files && readLimitsFile(files.limits, { env, providers: providerNames }, faults);
  const target = readTemporalTarget(env, faults);
  if (!settings || !models || !providers || !limits || !target || faults.length > 0)
    throw new ConfigError(faults);
  const { tiers, modelsHash } = models;
  const temporal = { ...settings.temporal, ...target };
  return deepFreeze({ ...settings, temporal, providers, models: models.models, tiers, modelsHash, limits });
}

/** The files that a configuration is read from, those included that may be there one day. */
export function configFiles(sources: ConfigSources = {}): readonly string[] {
  const env = presentEnvironment(sources.env ?? processEnvironment());
  const overlay = sources.configDir ?? env[FOLDER_VARIABLE];
  const folders = overlay === undefined ? [SHIPPED_FOLDER] : [SHIPPED_FOLDER, overlay];
  return folders.flatMap((folder) =>
    ['default.yaml', 'models.yaml', 'limits.yaml'].map((name) => join(folder, name)),
  );
}

/**
 * What only the gateway must hold to: it does not serve strangers without a key.
 * @throws ConfigError with `auth: off` on an address that others can reach, and with `auth: keys` without an admin key
 */
export function checkGatewayExposure({
  auth,
  gateway,
}: {
  readonly auth: Config['auth'];
  readonly gateway: Pick<Config['gateway'], 'host' | 'adminKey'>;
}): void {
  if (auth === 'off' && !isLoopback(gateway.host))
    throw new ConfigError([
      {
        key: 'auth',
        expected: `keys (with WEIR_ADMIN_KEY) where gateway.host is "${gateway.host}", which is not a loopback address`,
        got: '"off"',
        source: 'environment WEIR_AUTH and WEIR_GATEWAY_HOST, or auth and gateway.host in default.yaml',
      },
    ]);
  if (auth === 'keys' && gateway.adminKey === undefined)
    throw new ConfigError([
      {
        key: 'gateway.adminKey',
        expected: 'a key, since auth is "keys" (or, on a loopback address only, WEIR_AUTH=off)',
        got: 'nothing',
        source: 'environment WEIR_ADMIN_KEY or WEIR_ADMIN_KEY_FILE',
      },
    ]);
}

/** The environment names that a Weir process reads. */
type KnownEnvironment = {
  /** All but the headers for Temporal, whose names are free. */
  readonly names: ReadonlySet<string>;
  readonly has: (name: string) => boolean;
};

/**
 * Lists the environment names of settings, providers, rate limits, Temporal, and the files of secrets.
 * @param configDir a folder laid over the shipped files, whose providers count as well
 * @throws ConfigError when models.yaml cannot be read
 */
export function knownEnvironment(configDir?: string): KnownEnvironment {
  const faults: ConfigFault[] = [];
  const files = readFiles(configDir, faults);
  const models = files && readModelsFile(files.models, ownNames(), faults);
  const limits = files && readLimitsFile(files.limits, { env: {}, providers: undefined }, faults);
  if (!models || !limits || faults.length > 0) throw new ConfigError(faults);
  const names = new Set([
    ...ownNames(),
    ...providerEnvironmentNames(models.providers),
    ...rateEnvironment([...Object.keys(models.providers), ...Object.keys(limits.rates.providers)]).keys(),
  ]);
  return { names, has: (name) => names.has(name) || name.startsWith(TEMPORAL_METADATA_PREFIX) };
}

/** Names that no provider may take for its key, or a secret of Weir's would be sent to it. */
function ownNames(): ReadonlySet<string> {
  return new Set([FOLDER_VARIABLE, ...settingEnvironmentNames(), ...TEMPORAL_ENVIRONMENT]);
}

function processEnvironment(): Environment {
  return process.env;
}

type Files = {
  readonly settings: { readonly shipped: YamlFile; readonly overlay: YamlFile | undefined };
  readonly models: LayeredFile;
  readonly limits: LayeredFile;
};

function readFiles(folder: string | undefined, faults: ConfigFault[]): Files | undefined {
  if (folder !== undefined && !isFolder(folder)) {
    faults.push({
      key: FOLDER_VARIABLE,
      expected: 'a folder',
      got: `"${folder}"`,
      source: `environment ${FOLDER_VARIABLE}`,
    });
    return undefined;
  }
  const before = faults.length;
  if (folder !== undefined) faults.push(...misnamedFiles(folder));
  const shipped = (name: string) => readYamlFile(join(SHIPPED_FOLDER, name), faults, false);
  const overlay = (name: string) =>
    folder === undefined ? undefined : readYamlFile(join(folder, name), faults, true);
  const [settings, models, limits] = [
    shipped('default.yaml'),
    shipped('models.yaml'),
    shipped('limits.yaml'),
  ];
  const over = {
    settings: overlay('default.yaml'),
    models: overlay('models.yaml'),
    limits: overlay('limits.yaml'),
  };
  // Without one of the files, what the others have wrong would be full of consequences of that.
  if (!settings || !models || !limits || faults.length > before) return undefined;
  return {
    settings: { shipped: settings, overlay: over.settings },
    models: layFiles(models, over.models, 2),
    limits: layFiles(limits, over.limits, 3),
  };
}

/** A file that is not called exactly as it should be would be passed over, and its settings with it. */
function misnamedFiles(folder: string): ConfigFault[] {
  return ['default.yml', 'models.yml', 'limits.yml']
    .filter((name) => statSync(join(folder, name), { throwIfNoEntry: false }) !== undefined)
    .map((name) => ({
      key: '',
      expected: name.replace('.yml', '.yaml'),
      got: name,
      source: join(folder, name),
    }));
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false; // absent or not to be looked into: either way there is no folder to read
  }
}

function isLoopback(host: string): boolean {
  const address = host.toLowerCase();
  if (isIP(address) === 4) return address.startsWith('127.');
  return address === 'localhost' || address === '::1' || /^::ffff:127\.\d+\.\d+\.\d+$/.test(address);
}

/** Buffers (certificates) cannot be frozen and stay as they are. */
function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return value;
  for (const inner of Object.values(value)) deepFreeze(inner);
  return Object.freeze(value);
}

/** What the command line reads of the environment: addresses of a Weir that runs elsewhere, and what a child process inherits. */
export type CliEnvironment = {
  /** All variables that are set to something: WEIR_URL, WEIR_API_KEY, WEIR_STATE_DIR, TEMPORAL_ADDRESS and the rest. */
  readonly variables: Environment;
};

/** Reads the environment without judging it; `loadConfig` does, where a command needs a configuration. */
export function readCliEnvironment(): CliEnvironment {
  return { variables: presentEnvironment(processEnvironment()) };
}
