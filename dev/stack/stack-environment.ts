// The environment that tells Weir's processes where the stack's servers are. Names are those of config/default.yaml.
import { join } from 'node:path';
import type { ResolvedOptions } from './stack-options.ts';

export type Connections = {
  temporal: string;
  namespace: string;
  postgres: string;
  redis: string;
  /** root URL of the simulated provider */
  provider?: string | undefined;
};

/** What a user may have set for a Temporal elsewhere; it would keep a client from ours, which knows neither TLS nor keys. */
const TEMPORAL_ELSEWHERE = /^TEMPORAL_(API_KEY|API_KEY_FILE|TLS.*|PROFILE|CONFIG_FILE|GRPC_META_.*)$/;

/** Variables that a process needs to join this stack, over whatever else its environment holds. */
export function joinVariables(
  options: ResolvedOptions,
  connections: Connections,
  bundle?: string,
): Record<string, string> {
  const { provider } = connections;
  return {
    TEMPORAL_ADDRESS: connections.temporal,
    TEMPORAL_NAMESPACE: connections.namespace,
    DATABASE_URL: connections.postgres,
    REDIS_URL: connections.redis,
    WEIR_STATE_DIR: options.stateDir,
    WEIR_AUTH: options.adminKey === undefined ? 'off' : 'keys',
    ...(provider !== undefined && { SIMULATED_BASE_URL: `${provider}/v1` }),
    ...(bundle !== undefined && { WEIR_WORKFLOW_BUNDLE: bundle }),
    ...options.env,
  };
}

/** The inherited environment without what contradicts the variables laid over it. */
export function inheritedEnvironment(options: ResolvedOptions, ownTemporal: boolean): NodeJS.ProcessEnv {
  const inherited = Object.entries(options.environment).filter(([name]) => {
    // each would be a second value of a variable that we set
    if (name === 'DATABASE_URL_FILE' || name === 'REDIS_URL_FILE') return false;
    return !(ownTemporal && TEMPORAL_ELSEWHERE.test(name));
  });
  // A file that is not there is no settings. Without a name the one in the user's home would be read.
  const noFile = ownTemporal
    ? { TEMPORAL_CONFIG_FILE: join(options.stateDir, 'no-temporal-settings.toml') }
    : {};
  return { ...Object.fromEntries(inherited), ...noFile };
}
