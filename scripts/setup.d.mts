// Types of setup.mjs, which runs on Node 20 without TypeScript. Nothing but declarations.

export type SetupOptions = {
  /** the environment: addresses, PATH, cache folder */
  env: Record<string, string | undefined>;
  /** the checkout; default: this one */
  root?: string;
  /** gets one line per step and its time */
  log?: (line: string) => void;
  /** ends a running build */
  signal?: AbortSignal;
  /** other machines than this one, for tests */
  platform?: string;
  arch?: string;
  isRoot?: boolean;
  systemRoot?: string;
  /** where the Temporal CLI is downloaded from */
  downloads?: string;
};

/** Paths of the programs; null: an address was given instead. */
export type Tools = { temporal: string | null; redis: string | null };

/** Does all steps and writes `tools.json`. Throws a SetupError that names the remedy. */
export function setup(options: SetupOptions): Promise<Tools>;
