// Many seeds, several at a time on one connection. A seed that fails is played again, with its steps written down.

import { Redis as Client } from 'ioredis';
import { type RunReport, runSeed } from './run-seed.ts';
import { SCENARIO_VERSION } from './scenario.ts';
import { installVirtualTime } from './virtual-time.ts';

export type SeedsReport = {
  readonly runs: number;
  readonly steps: number;
  readonly requests: number;
  /** How many calls ended in which way. */
  readonly ends: Readonly<Record<string, number>>;
  /** One text per seed that failed: what was violated, how to play it again, and its steps. */
  readonly failures: readonly string[];
};

/** More at once are no faster: the scripts run one after the other anyway. */
const AT_ONCE = 32;
/** A few are enough to begin with, and each is long. */
const MAX_FAILURES = 5;

export async function runSeeds(
  redisUrl: string,
  seeds: Iterable<number>,
  options: { readonly prefix: string; readonly onProgress?: (runs: number) => void },
): Promise<SeedsReport> {
  const client = new Client(redisUrl);
  writeTogether(client);
  const left = seeds[Symbol.iterator]();
  const report = {
    runs: 0,
    steps: 0,
    requests: 0,
    ends: {} as Record<string, number>,
    failures: [] as string[],
  };
  const work = async () => {
    for (let next = left.next(); next.done !== true; next = left.next()) {
      if (report.failures.length >= MAX_FAILURES) return;
      const run = await runSeed(next.value, { client, prefix: `${options.prefix}-${next.value}` });
      report.runs += 1;
      report.steps += run.steps;
      report.requests += run.requests;
      for (const end of run.ends) report.ends[end] = (report.ends[end] ?? 0) + 1;
      if (run.violation !== undefined) report.failures.push(await explain(client, run, options.prefix));
      options.onProgress?.(report.runs);
    }
  };
  using _ = installVirtualTime();
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, work));
  } finally {
    client.disconnect();
  }
  return report;
}

/** Commands of one turn of the event loop leave together: most of what a short command costs is its write. */
function writeTogether(client: Client): void {
  const send = client.sendCommand.bind(client);
  let isGathering = false;
  client.sendCommand = (...command) => {
    if (!isGathering && client.status === 'ready') {
      isGathering = true;
      const { stream } = client;
      stream.cork();
      setImmediate(() => {
        isGathering = false;
        stream.uncork();
      });
    }
    return send(...command);
  };
}

async function explain(client: Client, { seed, violation }: RunReport, prefix: string): Promise<string> {
  const again = await runSeed(seed, { client, prefix: `${prefix}-${seed}-again`, isTraced: true });
  const isSame = again.violation === violation;
  return [
    `seed ${seed} (scenario version ${SCENARIO_VERSION}): ${violation}`,
    isSame ? `play it again: WEIR_MODEL_SEED=${seed}` : `NOT THE SAME when played again: ${again.violation}`,
    ...again.trace,
  ].join('\n');
}
