// Types of process-lock.mjs, which runs on Node 20 without TypeScript. Nothing but declarations.

/** A process at one moment of a machine's life: pid and start time together are never used again. */
export type ProcessRecord = { pid: number; started: string };

export type LockResult = { kind: 'acquired'; release: () => void } | { kind: 'held'; owner: ProcessRecord };

/** Boot and start time of a process, or null when it is gone. */
export function processStart(pid: number): string | null;

/** Whether the very process of a record made earlier still runs. */
export function isRunning(owner: ProcessRecord): boolean;

/** Takes the lock file, or says who has it. A lock whose owner is dead is free. */
export function acquireLock(file: string): LockResult;
