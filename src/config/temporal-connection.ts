// The connection to Temporal is Temporal's own configuration (TEMPORAL_* and its TOML file), read by its own library. What that
// library would take for something else without a word (`TEMPORAL_TLS=yes` turns TLS off) is refused here first.

import { loadClientConfigProfile, toClientOptions } from '@temporalio/envconfig';
import type { NativeConnectionOptions, TLSConfig } from '@temporalio/worker';
import { type Environment, readSecret } from './environment.ts';
import { type ConfigFault, describeGot } from './fault.ts';

/** Fits `NativeConnection.connect` and `Connection.connect`. */
type TemporalConnection = {
  /** `host:port` */
  readonly address: string;
  readonly tls?: TLSConfig | boolean;
  readonly apiKey?: string;
  readonly metadata?: Record<string, string>;
};

export type TemporalTarget = { readonly namespace: string; readonly connection: TemporalConnection };

const API_KEY = 'TEMPORAL_API_KEY';

/** Headers of every request: TEMPORAL_GRPC_META_<NAME>. */
export const TEMPORAL_METADATA_PREFIX = 'TEMPORAL_GRPC_META_';

export const TEMPORAL_ENVIRONMENT = [
  'TEMPORAL_ADDRESS',
  'TEMPORAL_NAMESPACE',
  API_KEY,
  `${API_KEY}_FILE`,
  'TEMPORAL_TLS',
  'TEMPORAL_TLS_CLIENT_CERT_PATH',
  'TEMPORAL_TLS_CLIENT_CERT_DATA',
  'TEMPORAL_TLS_CLIENT_KEY_PATH',
  'TEMPORAL_TLS_CLIENT_KEY_DATA',
  'TEMPORAL_TLS_SERVER_CA_CERT_PATH',
  'TEMPORAL_TLS_SERVER_CA_CERT_DATA',
  'TEMPORAL_TLS_SERVER_NAME',
  'TEMPORAL_CONFIG_FILE',
  'TEMPORAL_PROFILE',
] as const;

/** Reads where Temporal is. Undefined when there is a fault. */
export function readTemporalTarget(env: Environment, faults: ConfigFault[]): TemporalTarget | undefined {
  const before = faults.length;
  const apiKey = readSecret(env, API_KEY, 'temporal.connection.apiKey', faults)?.value;
  faults.push(...switchFaults(env));
  if (faults.length > before) return undefined;
  try {
    const profile = loadClientConfigProfile({ overrideEnvVars: toTexts({ ...env, [API_KEY]: apiKey }) });
    if ((profile.tls?.clientCert === undefined) !== (profile.tls?.clientKey === undefined))
      faults.push(fault('tls', 'a client certificate and its key, or neither', 'one of them'));
    const { connectionOptions: options, namespace = 'default' } = toClientOptions(profile);
    const address = options.address ?? '127.0.0.1:7233';
    if (!/^(\[[0-9a-fA-F:.]+\]|[^\s:/@[\]]+)(:\d{1,5})?$/.test(address))
      faults.push(fault('address', 'host:port, without a scheme', describeGot(address)));
    return { namespace, connection: toConnection(address, options, profile.grpcMeta) };
  } catch (error) {
    // Of a TOML file that is none, the lines after the first quote its content, which may hold a key.
    const [got = 'an error'] = error instanceof Error ? error.message.split('\n') : [];
    faults.push(fault('', 'a configuration that Temporal can read', got));
    return undefined;
  }
}

function toConnection(
  address: string,
  { tls, apiKey }: NativeConnectionOptions,
  headers: Record<string, string> | undefined,
): TemporalConnection {
  const connection = {
    address,
    ...(tls === undefined || tls === null ? {} : { tls }),
    ...(apiKey === undefined ? {} : { apiKey }),
  };
  if (headers === undefined) return connection;
  // Temporal's client writes headers of its own into the ones it is given: each reading is a copy, and the configuration stays as it is.
  return Object.defineProperty(connection, 'metadata', { enumerable: true, get: () => ({ ...headers }) });
}

function switchFaults(env: Environment): ConfigFault[] {
  const tls = env['TEMPORAL_TLS'];
  if (tls === undefined || ['true', 'false', '1', '0'].includes(tls)) return [];
  return [
    {
      key: 'temporal.connection.tls',
      expected: 'true or false',
      got: describeGot(tls),
      source: 'environment TEMPORAL_TLS',
    },
  ];
}

function fault(part: string, expected: string, got: string): ConfigFault {
  const key = part === '' ? 'temporal.connection' : `temporal.connection.${part}`;
  return { key, expected, got, source: "environment TEMPORAL_…, or Temporal's configuration file" };
}

function toTexts(env: Environment): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}
