import { createLogger } from '../src/log.ts';
import { createRates } from '../src/stores/rates.ts';
import { createRedis } from '../src/stores/redis.ts';

const redis = createRedis(
  { url: 'redis://127.0.0.1:7999', keyPrefix: 'x', commandTimeoutMs: 60000, policyChecked: true },
  createLogger({ level: 'error', format: 'json', service: 'b' }),
);
await redis.ready(5000);
await redis.command((c) => c.flushall());
for (const buckets of [2, 4]) {
  const limit = { rpm: 1e11, tpm: 1e12 };
  const rules = { provider: () => limit, ...(buckets === 4 && { model: () => limit }) };
  const rates = createRates(redis, { leaseMs: 60_000, rules });
  let n = 0;
  const once = async () => {
    n += 1;
    const callKey = `task-${n}:0-0123456789abcdef:answer:1`;
    await rates.admit({
      provider: `simulated-${buckets}`,
      model: 'simulated/small',
      tenantId: 't',
      callKey,
      candidate: 0,
      attemptKey: `${callKey}#0.1.1.0`,
      priority: 'normal',
      tokens: { input: 500, output: 1000 },
    });
  };
  const round = async (ms: number) => {
    const until = performance.now() + ms;
    let d = 0;
    await Promise.all(
      Array.from({ length: 32 }, async () => {
        while (performance.now() < until) {
          await once();
          d++;
        }
      }),
    );
    return d;
  };
  await round(500);
  await redis.command((c) => c.config('RESETSTAT'));
  const cpu0 = await cpu();
  const d = await round(3000);
  const c1 = (await cpu()) - cpu0;
  const stats = await redis.command((c) => c.info('commandstats'));
  console.log(buckets, 'ops', d, 'redis cpu us/op', (c1 / d).toFixed(1));
  console.log(
    stats
      .split('\n')
      .filter((l) => l.startsWith('cmdstat_'))
      .map((l) => l.trim().replace(/,(usec|rejected|failed).*?(usec_per_call=[\d.]+).*/, ' $2'))
      .join('\n'),
  );
}
async function cpu() {
  const i = await redis.command((c) => c.info('cpu'));
  return ['used_cpu_sys', 'used_cpu_user'].reduce(
    (s, k) => s + 1e6 * Number(new RegExp(`^${k}:([\\d.]+)`, 'm').exec(i)?.[1]),
    0,
  );
}
{
  await redis.command((c) => c.config('RESETSTAT'));
  const cpu0 = await cpu();
  let d = 0;
  const until = performance.now() + 3000;
  await Promise.all(
    Array.from({ length: 32 }, async () => {
      while (performance.now() < until) {
        await redis.command((c) => c.incr('k'));
        d++;
      }
    }),
  );
  console.log('incr', d, ((await cpu()) - cpu0) / d);
  console.log(
    (await redis.command((c) => c.info('commandstats')))
      .split('\n')
      .filter((l) => l.includes('incr'))
      .join(),
  );
}
await redis.close();
