// `fan-out --drops`: readers that are cut off 20 times each, at any byte, and go on by the id of the last event that came whole. In the end
// each must have every milestone once, in order, and the whole text of every call.

import { heading, say, table } from '../dev/demo/terminal.ts';
import type { DroppedOrder, DroppedReport } from './fan-out-dropped.ts';
import { publishEvenly, startChild, startGateway, startTask } from './fan-out-fleet.ts';
import { openBenchStores, type Servers } from './harness.ts';

const DROPS = 20;
const CALLS = 10;
const PER_SECOND = 100;

export async function compareDropped(
  servers: Servers,
  {
    readers,
    seconds,
    profile,
  }: {
    readonly readers: number;
    readonly seconds: number;
    readonly profile: string | undefined;
  },
): Promise<void> {
  await using bench = await openBenchStores(servers);
  await using gateway = await startGateway(servers, bench.name, { coalesceMs: 50, profile });
  await using dropped = await startChild<DroppedOrder>('./fan-out-dropped.ts', gateway.port);
  const task = await startTask(bench, 'dropped');
  // Most are through with their drops when the task ends; the others are cut off in its end.
  const livesMs = (1.6 * seconds * 1_000) / DROPS;
  const reading = dropped.ask({ path: task.path, readers, drops: DROPS, livesMs });
  const before = await gateway.cost();
  const startedAt = performance.now();
  const texts = new Map<string, string>();
  for (let index = 0; index < CALLS; index += 1) {
    const call = await task.startCall(`step-${index}`);
    let text = '';
    const publish = () => {
      const piece = `${index}.${call.published()} `;
      text += piece;
      return call.publish(piece);
    };
    await publishEvenly(publish, { seconds: seconds / CALLS, perSecond: PER_SECOND });
    await call.complete(text);
    texts.set(call.callKey, text);
  }
  await task.end();
  const groups = (await reading) as DroppedReport; // what it answers to this
  const ms = performance.now() - startedAt;
  const after = await gateway.cost();
  const isRight = (group: DroppedReport[number]) =>
    group.milestones.length === 2 * CALLS + 3 &&
    group.milestones.at(-1)?.startsWith('stream_end ') === true &&
    group.texts.length === texts.size &&
    group.texts.every(([call, text]) => texts.get(call) === text);
  const right = groups.filter(isRight).reduce((sum, group) => sum + group.readers, 0);
  const drops = groups.reduce((sum, group) => sum + group.drops, 0);
  heading(`${right} of ${readers} readers have every milestone once and the whole text of ${CALLS} calls`);
  say(`in the end, after ${drops} cuts in ${(ms / 1_000).toFixed(0)} s`);
  table(
    ['readers', 'cuts', 'resets', 'milestones', 'calls', 'right'],
    groups.map((group) => [
      String(group.readers),
      String(group.drops),
      String(group.resets),
      String(group.milestones.length),
      String(group.texts.length),
      isRight(group) ? 'yes' : 'no',
    ]),
  );
  say(`gateway: ${((100 * (after.cpuMicros - before.cpuMicros)) / 1_000 / ms).toFixed(0)} % of a core`);
}
