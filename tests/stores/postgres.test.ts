import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import {
  createPostgres,
  isPostgresOutage,
  migrate,
  type Postgres,
  type Sql,
} from '../../src/stores/postgres.ts';
import { eventually } from '../support/eventually.ts';
import { QUIET } from '../support/stores.ts';

const schema = `t_${randomBytes(6).toString('hex')}`;
let postgres: Postgres;

function open(poolSize = 5, statementTimeoutMs = 10_000): Postgres {
  const url = new URL(inject('servers').postgres);
  url.searchParams.set('application_name', schema);
  return createPostgres({ url: url.href, schema, poolSize, statementTimeoutMs }, QUIET);
}

const coded = (code: string) => Object.assign(new Error(`refused with ${code}`), { code });

async function rows(): Promise<number[]> {
  return (await postgres.query<{ n: number }>('select n from notes order by n')).rows.map((row) => row.n);
}

const note = (sql: Sql, n: number) => sql.query('insert into notes (n) values ($1)', [n]);

/** Ends every connection of this file but the one it asks over, as a server that restarts does. */
async function killOthers(): Promise<void> {
  await postgres.query(
    'select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1 and pid <> pg_backend_pid()',
    [schema],
  );
}

beforeAll(async () => {
  postgres = open();
  await postgres.query(`create schema ${schema}`);
  await postgres.query('create table notes (n integer primary key, text text)');
});

afterAll(async () => {
  await postgres.query(`drop schema ${schema} cascade`);
  await postgres.close();
});

describe('query', () => {
  it('reads big numbers and sums as bigint, exactly', async () => {
    const { rows: found } = await postgres.query(
      `select 9007199254740993::int8 as big, (select sum(n::int8) from (values (9007199254740992), (1)) as v (n)) as sum, 1::int4 as small`,
    );
    expect(found).toEqual([{ big: 9_007_199_254_740_993n, sum: 9_007_199_254_740_993n, small: 1 }]);
  });

  it('works in its own schema', async () => {
    expect((await postgres.query('select current_schema() as name')).rows).toEqual([{ name: schema }]);
  });

  it('ends a statement that takes too long', async () => {
    const hasty = open(1, 50);
    try {
      await expect(hasty.query('select pg_sleep(30)')).rejects.toMatchObject({ code: '57014' });
      expect((await hasty.query('select 1 as one')).rows).toEqual([{ one: 1 }]);
    } finally {
      await hasty.close();
    }
  });

  it('goes on after an idle connection was ended by the server', async () => {
    const other = open(1);
    try {
      await other.ping();
      await killOthers();
      await eventually(() => other.ping());
    } finally {
      await other.close();
    }
  });
});

describe('transaction', () => {
  it('commits what it did together', async () => {
    expect(
      await postgres.transaction(async (sql) => {
        await note(sql, 1);
        await note(sql, 2);
        expect(await rows()).toEqual([]);
        return 'done';
      }),
    ).toBe('done');
    expect(await rows()).toEqual([1, 2]);
  });

  it('takes everything back when the work throws, and throws the same', async () => {
    const error = new Error('changed my mind');
    await expect(
      postgres.transaction(async (sql) => {
        await note(sql, 10);
        throw error;
      }),
    ).rejects.toBe(error);
    expect(await rows()).not.toContain(10);
  });

  it.each(['40001', '40P01'])('repeats the work from its beginning after %s', async (code) => {
    let tries = 0;
    await postgres.transaction(async (sql) => {
      tries += 1;
      await note(sql, 20);
      if (tries < 3) throw coded(code);
      await sql.query('delete from notes where n = 20');
    });
    expect(tries).toBe(3);
  });

  it('gives up after five tries', async () => {
    let tries = 0;
    const work = () => {
      tries += 1;
      return Promise.reject(coded('40001'));
    };
    await expect(postgres.transaction(work)).rejects.toMatchObject({ code: '40001' });
    expect(tries).toBe(5);
  });

  it.each(['23505', '22021', '57P01', undefined])('does not repeat after %s', async (code) => {
    let tries = 0;
    const work = () => {
      tries += 1;
      return Promise.reject(code === undefined ? new Error('plain') : coded(code));
    };
    await expect(postgres.transaction(work)).rejects.toThrow();
    expect(tries).toBe(1);
  });

  it('lets both of two that block each other come to their end', async () => {
    await postgres.query('insert into notes (n, text) values (31, $1), (32, $1)', ['']);
    const first = Promise.withResolvers<void>();
    const second = Promise.withResolvers<void>();
    const write = (sql: Sql, n: number, name: string) =>
      sql.query('update notes set text = text || $2 where n = $1', [n, name]);
    const cross = (
      from: number,
      to: number,
      mine: PromiseWithResolvers<void>,
      other: PromiseWithResolvers<void>,
    ) =>
      postgres.transaction(async (sql) => {
        await sql.query("set local deadlock_timeout = '20ms'");
        await write(sql, from, `${from}`);
        mine.resolve();
        await other.promise;
        await write(sql, to, `${from}`);
      });
    await Promise.all([cross(31, 32, first, second), cross(32, 31, second, first)]);
    const { rows: found } = await postgres.query<{ text: string }>(
      'select text from notes where n in (31, 32)',
    );
    // Each wrote its own name once into both rows: what the victim did before it was chosen is gone.
    expect(
      found.map((row) => row.text).map((text) => [text.includes('31'), text.includes('32'), text.length]),
    ).toEqual([
      [true, true, 4],
      [true, true, 4],
    ]);
  });

  it('throws when the server ends its connection, and leaves the pool usable', async () => {
    const single = open(1);
    try {
      const work = single.transaction(async (sql) => {
        await note(sql, 40);
        await killOthers();
        await sql.query('select 1');
      });
      await expect(work).rejects.toSatisfy(isPostgresOutage);
      await single.ping();
      expect(await rows()).not.toContain(40);
    } finally {
      await single.close();
    }
  });
});

describe('exclusively', () => {
  it('lets one at a time do a job and tells the others', async () => {
    const gate = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const first = postgres.exclusively('job', async () => {
      begun.resolve();
      await gate.promise;
      return 'mine';
    });
    await begun.promise;
    const others = await Promise.all([1, 2].map(() => postgres.exclusively('job', async () => 'theirs')));
    expect(others).toEqual([undefined, undefined]);
    expect(await postgres.exclusively('another job', async () => 'done')).toBe('done');
    gate.resolve();
    expect(await first).toBe('mine');
    expect(await postgres.exclusively('job', async () => 'next')).toBe('next');
  });

  it('gives the lock back when the job fails', async () => {
    await expect(postgres.exclusively('job', () => Promise.reject(new Error('broken')))).rejects.toThrow(
      'broken',
    );
    expect(await postgres.exclusively('job', async () => 'next')).toBe('next');
  });

  it('does not hold up the same job of another schema', async () => {
    const other = createPostgres(
      { url: inject('servers').postgres, schema: `${schema}_2`, poolSize: 1, statementTimeoutMs: 1_000 },
      QUIET,
    );
    try {
      expect(await postgres.exclusively('job', () => other.exclusively('job', async () => 'both'))).toBe(
        'both',
      );
    } finally {
      await other.close();
    }
  });
});

/** A server that is ready and stops in one breath: both messages come in one read of the client. */
async function serveAndStop(): Promise<Server> {
  const message = (type: string, body: Buffer) =>
    Buffer.concat([Buffer.from(type), Buffer.from(new Uint32Array([0]).buffer), body]);
  const sized = (bytes: Buffer) => {
    bytes.writeUInt32BE(bytes.length - 1, 1);
    return bytes;
  };
  const answer = Buffer.concat([
    sized(message('R', Buffer.alloc(4))),
    sized(message('Z', Buffer.from('I'))),
    sized(message('E', Buffer.from('SFATAL\0C57P01\0Mterminating connection\0\0'))),
  ]);
  const server = createServer((socket) => {
    socket.on('error', () => undefined /* the client is free to go */);
    socket.once('data', () => socket.end(answer));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

describe('a connection that dies while its owner does something else', () => {
  it('costs its transaction, not the process, when it dies in the moment in which it became ready', async () => {
    const server = await serveAndStop();
    const url = `postgres://nobody@127.0.0.1:${(server.address() as AddressInfo).port}/none`;
    const stopping = createPostgres({ url, schema, poolSize: 1, statementTimeoutMs: 1_000 }, QUIET);
    try {
      const work = stopping.transaction((sql) => note(sql, 60));
      await expect(work).rejects.toSatisfy(isPostgresOutage);
    } finally {
      await stopping.close();
      server.close();
    }
  });

  it('costs the lock of a job, not the process', async () => {
    const single = open(2);
    try {
      const died = single.exclusively('fragile job', async () => {
        await killOthers();
        await eventually(async () =>
          expect(await postgres.exclusively('fragile job', async () => 'free')).toBe('free'),
        );
        return 'done';
      });
      expect(await died).toBe('done');
      await single.ping();
    } finally {
      await single.close();
    }
  });
});

describe('migrate', () => {
  it('lets two processes that start at once come up on one schema', async () => {
    const fresh = `${schema}_fresh`;
    const options = { url: inject('servers').postgres, schema: fresh };
    try {
      const done = await Promise.all([migrate(options, QUIET), migrate(options, QUIET)]);
      expect(done.flat()).toEqual([
        ...['1_tables', '2_money', '3_queues', '4_learnt_rates', '5_degradation', '6_event_log'],
      ]);
      expect(await migrate(options, QUIET)).toEqual([]);
      const { rows: found } = await postgres.query(
        'select count(*)::int as n from information_schema.tables where table_schema = $1',
        [fresh],
      );
      expect(found[0]?.['n']).toBeGreaterThan(10);
    } finally {
      await postgres.query(`drop schema if exists ${fresh} cascade`);
    }
  });
});

describe('isPostgresOutage', () => {
  it.each<[unknown, boolean]>([
    [coded('22021'), false],
    [coded('23505'), false],
    [coded('40001'), false],
    [coded('42P01'), false],
    [coded('57014'), true],
    [coded('57P01'), true],
    [coded('53300'), true],
    [coded('08006'), true],
    [coded('ECONNREFUSED'), true],
    [new Error('Connection terminated unexpectedly'), true],
    ['a text', false],
  ])('judges %s', (error, expected) => {
    expect(isPostgresOutage(error)).toBe(expected);
  });
});

describe('a transaction with a limit of its own', () => {
  it('runs statements that are longer than others may be, and only these', async () => {
    const hasty = open(1, 50);
    try {
      const slow = 'select pg_sleep(0.2)';
      await expect(hasty.query(slow)).rejects.toThrow('statement timeout');
      await hasty.transaction((sql) => sql.query(slow), { statementTimeoutMs: 10_000 });
      await expect(hasty.transaction((sql) => sql.query(slow))).rejects.toThrow('statement timeout');
    } finally {
      await hasty.close();
    }
  });
});

describe('jobs under locks', () => {
  it('get connections for their work however many begin together', async () => {
    const narrow = open(1);
    try {
      const names = Array.from({ length: 8 }, (_, n) => `job-${n}`);
      const done = await Promise.all(
        names.map((name) =>
          narrow.exclusively(name, () => narrow.query<{ name: string }>('select $1::text as name', [name])),
        ),
      );
      expect(done.map((answer) => answer?.rows[0]?.name)).toEqual(names);
    } finally {
      await narrow.close();
    }
  });
});
