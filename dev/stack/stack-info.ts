// The file by which other programs find a running stack. It is there only while everything in it is true.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomically } from './state-folder.ts';

/** Addresses as a client uses them, and the pids of what the stack started itself. */
export type StackInfo = {
  /** base URL; absent when the stack has servers only */
  gateway?: string;
  /** host:port of the gRPC frontend */
  temporal: string;
  /** base URL of the Web UI; absent when the Temporal server is not ours */
  temporalUi?: string;
  namespace: string;
  /** postgres:// URL */
  postgres: string;
  /** redis:// URL */
  redis: string;
  /** root URL of the simulated provider (its OpenAI protocol is below /v1); absent when real providers are called */
  provider?: string;
  /** URLs of the pages for Prometheus: gateway and workers */
  metrics: string[];
  /** present when requests need it */
  adminKey?: string;
  /** absent: not started by this stack, or dead and about to be started again */
  pids: {
    temporal?: number;
    postgres?: number;
    redis?: number;
    provider?: number;
    gateway?: number;
    workers: number[];
  };
};

/** Writes `stack.json`; readers see it whole. Only its owner may read it, because it may hold the admin key. */
export function writeStackInfo(stateDir: string, info: StackInfo): void {
  writeFileAtomically(stackFile(stateDir), `${JSON.stringify(info, null, 2)}\n`);
}

export function removeStackInfo(stateDir: string): void {
  rmSync(stackFile(stateDir), { force: true });
}

export function stackFile(stateDir: string): string {
  return join(stateDir, 'stack.json');
}
