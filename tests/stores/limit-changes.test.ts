// Every process hears when somebody changed a limit, and is told when it may have missed something.

import { expect, inject, it } from 'vitest';
import { listenForLimitChanges } from '../../src/stores/limit-changes.ts';
import { eventually } from '../support/eventually.ts';
import { openTestStores, QUIET } from '../support/stores.ts';

const LIMIT = { unit: 'usd', window: 'day', amount: 5n, hard: true, warnAt: 0.8 } as const;

it('tells of limits that were set and removed, by tenant, once it listens', async () => {
  await using test = await openTestStores();
  const heard: (string | undefined)[] = [];
  const url = inject('servers').postgres;
  await using _ = listenForLimitChanges({ url, schema: test.schema }, (tenant) => heard.push(tenant), QUIET);
  await eventually(() => expect(heard).toEqual([undefined]));
  await test.stores.limits.set('acme', { kind: 'user', id: 'ada' }, [LIMIT], { by: 'test' });
  await test.stores.limits.remove('other', { kind: 'user', id: 'ada' }, { by: 'test' });
  await test.stores.limits.remove('acme', { kind: 'user', id: 'ada' }, { by: 'test' });
  await eventually(() => expect(heard).toEqual([undefined, 'acme', 'acme']));
});

it('says that changes may have been missed when its connection was lost, and hears again', async () => {
  await using test = await openTestStores();
  const heard: (string | undefined)[] = [];
  const url = inject('servers').postgres;
  await using _ = listenForLimitChanges({ url, schema: test.schema }, (tenant) => heard.push(tenant), QUIET);
  await eventually(() => expect(heard).toEqual([undefined]));
  const { rows } = await test.postgres.query<{ count: number }>(
    `select count(pg_terminate_backend(pid))::int as count from pg_stat_activity where query = $1`,
    [`listen "${test.schema}.limits_changed"`],
  );
  expect(rows[0]?.count).toBe(1);
  await eventually(() => expect(heard).toEqual([undefined, undefined]));
  await test.stores.limits.set('acme', { kind: 'tenant', id: 'acme' }, [LIMIT], { by: 'test' });
  await eventually(() => expect(heard).toEqual([undefined, undefined, 'acme']));
});

it('keeps who changed what, also after the limit is gone', async () => {
  await using test = await openTestStores();
  const scope = { kind: 'session', id: 's' } as const;
  await test.stores.limits.set('acme', scope, [LIMIT], { by: 'ada' });
  await test.stores.limits.remove('acme', scope, { by: 'bob' });
  const { rows } = await test.postgres.query(
    'select scope, scope_id, change, changed_by, details from budget_changes order by id',
  );
  expect(rows).toEqual([
    {
      ...{ scope: 'session', scope_id: 's', change: 'set', changed_by: 'ada' },
      details: { limits: [{ ...LIMIT, amount: '5' }] },
    },
    { scope: 'session', scope_id: 's', change: 'removed', changed_by: 'bob', details: {} },
  ]);
});
