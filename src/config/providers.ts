// Providers with their keys and addresses from the environment. A provider that cannot be called is told apart here, once: its
// models are no candidates.

import { type Environment, readSecret } from './environment.ts';
import type { ConfigFault } from './fault.ts';
import type { ModelsFile, ProviderEntry } from './models-file.ts';
import { toRecord } from './records.ts';
import { isUrl } from './setting.ts';

export type Provider = {
  readonly protocol: ProviderEntry['protocol'];
  /** Keys that are used in turn; none where it needs none. */
  readonly apiKeys: readonly string[];
  /** Without one the protocol's own public address is meant. */
  readonly baseUrl?: string;
  /** Whether its models can be called: its key is set, or it needs none and its address is known. */
  readonly available: boolean;
};

/** Looks up the variables that models.yaml names. */
export function readProviders(
  entries: ModelsFile['providers'],
  env: Environment,
  faults: ConfigFault[],
): Readonly<Record<string, Provider>> {
  return toRecord(
    Object.entries(entries).map(([name, entry]) => [name, readProvider(name, entry, env, faults)] as const),
  );
}

/** The environment names of the providers. */
export function providerEnvironmentNames(entries: ModelsFile['providers']): string[] {
  return Object.values(entries).flatMap(({ apiKeyEnv, baseUrlEnv }) => [
    ...(apiKeyEnv ?? []).flatMap((variable) => [variable, `${variable}_FILE`]),
    ...(baseUrlEnv === undefined ? [] : [baseUrlEnv]),
  ]);
}

function readProvider(name: string, entry: ProviderEntry, env: Environment, faults: ConfigFault[]): Provider {
  const { apiKeyEnv, baseUrlEnv, protocol } = entry;
  const found = (apiKeyEnv ?? []).map(
    (variable) => readSecret(env, variable, `providers.${name}.apiKey`, faults)?.value,
  );
  // The same key under two names is one key.
  const apiKeys = [...new Set(found.filter((key) => key !== undefined))];
  const given = baseUrlEnv === undefined ? undefined : env[baseUrlEnv];
  if (given !== undefined && !isUrl(given, ['http:', 'https:']))
    faults.push({
      key: `providers.${name}.baseUrl`,
      expected: 'an http:// or https:// URL',
      // An address may carry a user's password.
      got: 'a text (not shown)',
      source: `environment ${baseUrlEnv}`,
    });
  const baseUrl = given ?? entry.baseUrl;
  const hasKey = apiKeyEnv === undefined ? baseUrl !== undefined : apiKeys.length > 0;
  return {
    protocol,
    apiKeys,
    ...(baseUrl === undefined ? {} : { baseUrl }),
    available: hasKey && (protocol !== 'openai-compatible' || baseUrl !== undefined),
  };
}
