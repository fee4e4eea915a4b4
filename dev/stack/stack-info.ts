// The file by which other programs find a running stack, and its content. It is there only while everything in it is true.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Part } from './part.ts';
import type { Server } from './server.ts';
import type { ServerName, ServerPlan } from './servers.ts';
import { writeFileAtomically } from './state-folder.ts';

export type PartName = ServerName | 'gateway' | `worker-${number}`;

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
  /** URLs of the pages for Prometheus: gateway and workers that are up */
  metrics: string[];
  /** present when requests need it */
  adminKey?: string;
  /** a pid is absent when the part is not ours, or dead and about to be started again */
  pids: {
    temporal?: number;
    postgres?: number;
    redis?: number;
    provider?: number;
    gateway?: number;
    workers: number[];
  };
};

type Parts = ReadonlyMap<PartName, Part<Server>>;

/** What is true of the stack now. An address outlives its part, which comes back there; a pid does not. */
export function describeStack(parts: Parts, plan: ServerPlan, adminKey: string | undefined): StackInfo {
  const address = (name: ServerName) => plan.given[name] ?? parts.get(name)?.last?.address;
  const gateway = parts.get('gateway')?.last?.address;
  const temporalUi = parts.get('temporal')?.last?.ui;
  const provider = address('provider');
  return {
    ...(gateway !== undefined && { gateway }),
    temporal: address('temporal') ?? '',
    ...(temporalUi !== undefined && { temporalUi }),
    namespace: plan.namespace,
    postgres: address('postgres') ?? '',
    redis: address('redis') ?? '',
    ...(provider !== undefined && { provider }),
    metrics: metricsPages(parts),
    ...(adminKey !== undefined && { adminKey }),
    pids: pidsOf(parts),
  };
}

function metricsPages(parts: Parts): string[] {
  return [...parts]
    .filter(([name]) => name === 'gateway' || isWorker(name))
    .flatMap(([, { current }]) => (current === undefined ? [] : [`${current.address}/metrics`]));
}

function pidsOf(parts: Parts): StackInfo['pids'] {
  const workers: number[] = [];
  const others: Record<string, number> = {};
  for (const [name, { current }] of parts) {
    if (current === undefined) continue;
    if (isWorker(name)) workers.push(current.child.pid);
    else others[name] = current.child.pid;
  }
  return { ...others, workers };
}

/** Whether a part is one of the workers. */
export function isWorker(name: PartName): boolean {
  return name.startsWith('worker-');
}

/** Writes `stack.json`; readers see it whole. Only its owner may read it, because it may hold the admin key. */
export function writeStackInfo(stateDir: string, info: StackInfo): void {
  writeFileAtomically(stackFile(stateDir), `${JSON.stringify(info, null, 2)}\n`);
}

/** Removes `stack.json`, if it is there. */
export function removeStackInfo(stateDir: string): void {
  rmSync(stackFile(stateDir), { force: true });
}

/** Where the file of a state folder is. */
export function stackFile(stateDir: string): string {
  return join(stateDir, 'stack.json');
}
