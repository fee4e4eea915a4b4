// Types of setup-readers.mjs, which needs no package. Nothing but declarations.

export type ReaderOptions = {
  /** PATH is where the programs are looked for */
  env: Record<string, string | undefined>;
  /** gets a line about what takes long */
  say?: (line: string) => void;
  /** other machines than this one, for tests */
  platform?: string;
  isRoot?: boolean;
  systemRoot?: string;
};

/** Paths of the programs. */
export type Readers = { nginx: string; chromium: string };

/** Finds or installs them. Throws a SetupError that names the remedy. */
export function setUpReaders(options: ReaderOptions): Promise<Readers>;
