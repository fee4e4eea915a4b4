// Shares of a task's budget: what a task leaves to each of its parallel steps. A share is a scope with hard limits of its own, which every
// hold of that step meets beside those of the task; siblings cannot take it, since their own shares bind them.

import { type BindingLimit, type Payer, type Scope, scopesOf } from '../task/budget.ts';
import { isId } from '../task/input.ts';
import type { Spent } from './accounts.ts';
import type { Limits } from './limits.ts';
import type { Postgres, Sql } from './postgres.ts';
import { readScopeSums } from './scope-sums.ts';

/** A part of a budget; what is absent is not bound by the share itself. */
export type ShareAmounts = { readonly nanoUsd?: bigint; readonly tokens?: bigint };

/** `shareId` is `<taskId>:<name>`, without a colon in the name. */
export type Share = ShareAmounts & { readonly shareId: string };

export type Delegation =
  | { readonly kind: 'delegated' }
  /** The caps together are more than is left; a unit that no hard limit binds is absent. */
  | { readonly kind: 'exceeded'; readonly left: ShareAmounts };

export type TaskPayer = Payer & { readonly taskId: string };

export type Shares = ReturnType<typeof createShares>;

export function createShares(postgres: Postgres, limits: Pick<Limits, 'binding' | 'intervalOf'>) {
  return {
    /**
     * Splits what the hard limits of the task's scopes have left. All shares or none; a share of a known id stays as it is.
     * @throws RangeError when an id does not belong to the task, or an amount is negative
     */
    delegate(payer: TaskPayer, shares: readonly Share[]): Promise<Delegation> {
      check(payer, shares);
      return postgres.transaction((sql) => delegate(sql, limits, payer, shares));
    },

    /** Closes shares: nothing is held on them any more. Answers what they did not use, also when asked again. */
    giveBack: (payer: TaskPayer, shareIds: readonly string[]): Promise<ShareAmounts> =>
      postgres.transaction((sql) => giveBack(sql, payer, shareIds)),
  };
}

function check({ taskId }: TaskPayer, shares: readonly Share[]): void {
  for (const { shareId, nanoUsd = 0n, tokens = 0n } of shares) {
    const name = shareId.startsWith(`${taskId}:`) ? shareId.slice(taskId.length + 1) : '';
    // A task's id may hold colons: with one in a name nobody could tell whose share it is.
    if (!isId(name) || name.includes(':'))
      throw new RangeError(`not a share of task ${taskId}: ${JSON.stringify(shareId)}`);
    if (nanoUsd < 0n || tokens < 0n) throw new RangeError(`share ${shareId} is negative`);
  }
}

async function delegate(
  sql: Sql,
  limits: Pick<Limits, 'binding' | 'intervalOf'>,
  payer: TaskPayer,
  shares: readonly Share[],
): Promise<Delegation> {
  await lockShares(sql, payer);
  const known = await readShares(sql, payer);
  const added = shares.filter(({ shareId }) => known.every((share) => share.shareId !== shareId));
  const open = known.map(unspent);
  const left = await readLeft(sql, limits, payer, {
    nanoUsd: sum(open.map(({ nanoUsd }) => nanoUsd)),
    tokens: sum(open.map(({ tokens }) => tokens)),
  });
  const asked = {
    nanoUsd: sum(added.map(({ nanoUsd }) => nanoUsd)),
    tokens: sum(added.map(({ tokens }) => tokens)),
  };
  if (asked.nanoUsd > (left.nanoUsd ?? asked.nanoUsd) || asked.tokens > (left.tokens ?? asked.tokens))
    return { kind: 'exceeded', left };
  await sql.query(
    `insert into budgets (tenant_id, scope, scope_id, limits)
     select $1, 'share', id, limits from unnest($2::text[], $3::jsonb[]) as s (id, limits)`,
    [
      payer.tenantId,
      added.map(({ shareId }) => shareId),
      added.map((share) => JSON.stringify(toStoredCaps(share))),
    ],
  );
  return { kind: 'delegated' };
}

/** Two delegations of one task come one after the other, also where it has no row of limits to lock. */
async function lockShares(sql: Sql, { tenantId, taskId }: TaskPayer): Promise<void> {
  await sql.query(
    `select pg_advisory_xact_lock(hashtextextended(current_schema() || '.shares.' || $1 || '.' || $2, 0))`,
    [tenantId, taskId],
  );
  // A limit of the task that is being changed is waited for.
  await sql.query(
    `select from budgets where tenant_id = $1 and scope = 'task' and scope_id = $2 for update`,
    [tenantId, taskId],
  );
}

type KnownShare = Share & { readonly isOpen: boolean; readonly used: Spent };

/** As `budgets.limits` holds a share: `cap` is what it was given, `amount` what still binds. */
type StoredCap = {
  readonly unit: BindingLimit['unit'];
  readonly window: 'total';
  readonly amount: string;
  readonly cap: string;
  readonly hard: true;
  readonly warnAt: 1;
};

function toStoredCaps({ nanoUsd, tokens }: ShareAmounts): readonly StoredCap[] {
  const cap = (unit: StoredCap['unit'], amount: bigint | undefined): readonly StoredCap[] => {
    const text = amount?.toString();
    return text === undefined
      ? []
      : [{ unit, window: 'total', amount: text, cap: text, hard: true, warnAt: 1 }];
  };
  return [...cap('usd', nanoUsd), ...cap('tokens', tokens)];
}

/** All shares that a task ever gave, with what they have settled and under way. */
async function readShares(sql: Sql, { tenantId, taskId }: TaskPayer): Promise<readonly KnownShare[]> {
  const { rows } = await sql.query<{ id: string; limits: StoredCap[]; nano: bigint; tokens: bigint }>(
    `select b.scope_id as id, b.limits, coalesce(sum(u.nano), 0) as nano, coalesce(sum(u.tokens), 0) as tokens
     from budgets b left join lateral (
       select cost_nano_usd as nano, l.tokens from ledger l where l.tenant_id = $1 and l.share_id = b.scope_id
       union all
       select estimate_nano_usd, estimate_tokens from attempts a
       where a.state = 'started' and a.tenant_id = $1 and a.share_id = b.scope_id) u on true
     where b.tenant_id = $1 and b.scope = 'share' and starts_with(b.scope_id, $2 || ':')
       and strpos(substr(b.scope_id, length($2) + 2), ':') = 0 group by 1, 2`,
    [tenantId, taskId],
  );
  return rows.map(({ id, limits, nano, tokens }) => {
    const cap = (unit: StoredCap['unit']) => limits.find((limit) => limit.unit === unit)?.cap;
    const [nanoUsd, ofTokens] = [cap('usd'), cap('tokens')];
    return {
      shareId: id,
      ...(nanoUsd === undefined ? {} : { nanoUsd: BigInt(nanoUsd) }),
      ...(ofTokens === undefined ? {} : { tokens: BigInt(ofTokens) }),
      isOpen: limits.every(({ amount, cap: given }) => amount === given),
      used: { nanoUsd: nano, tokens },
    };
  });
}

/** What an open share may still take. */
function unspent(share: KnownShare): ShareAmounts {
  return share.isOpen ? unused(share) : {};
}

/** What a share was given and did not use. */
function unused({ nanoUsd, tokens, used }: KnownShare): ShareAmounts {
  return {
    ...(nanoUsd === undefined ? {} : { nanoUsd: atLeastZero(nanoUsd - used.nanoUsd) }),
    ...(tokens === undefined ? {} : { tokens: atLeastZero(tokens - used.tokens) }),
  };
}

/** What the tightest hard limit of each unit has left beside settled spend, calls under way and what open shares may still take. */
async function readLeft(
  sql: Sql,
  limits: Pick<Limits, 'binding' | 'intervalOf'>,
  payer: TaskPayer,
  reserved: Required<ShareAmounts>,
): Promise<ShareAmounts> {
  // The payer of the whole task: what its shares took is in its sums.
  const { shareId: _, ...whole } = payer;
  const binding = (await limits.binding(whole, sql)).filter(({ hard }) => hard);
  const { rows } = await sql.query<{ now: Date }>('select now() as now');
  const nowMs = (rows[0]?.now ?? new Date()).getTime();
  const rooms: { unit: BindingLimit['unit']; room: bigint }[] = [];
  for (const scope of scopesOf(whole)) {
    const own = binding.filter((limit) => limit.scope.kind === scope.kind && limit.scope.id === scope.id);
    rooms.push(...(await roomsOf(sql, payer.tenantId, scope, { own, limits, nowMs })));
  }
  const tightest = (unit: BindingLimit['unit'], taken: bigint) => {
    const of = rooms.filter((one) => one.unit === unit).map(({ room }) => atLeastZero(room - taken));
    return of.length === 0 ? undefined : of.reduce((left, right) => (right < left ? right : left));
  };
  const nanoUsd = tightest('usd', reserved.nanoUsd);
  const tokens = tightest('tokens', reserved.tokens);
  return { ...(nanoUsd === undefined ? {} : { nanoUsd }), ...(tokens === undefined ? {} : { tokens }) };
}

async function roomsOf(
  sql: Sql,
  tenantId: string,
  scope: Scope,
  of: {
    readonly own: readonly BindingLimit[];
    readonly limits: Pick<Limits, 'intervalOf'>;
    readonly nowMs: number;
  },
): Promise<{ unit: BindingLimit['unit']; room: bigint }[]> {
  if (of.own.length === 0) return [];
  const intervals = of.own.map((limit) => of.limits.intervalOf(limit, of.nowMs));
  const { settled, started } = await readScopeSums(sql, tenantId, scope, intervals);
  return of.own.map(({ unit, amount }, index) => {
    const { startMs = 0, endMs = 0 } = intervals[index] ?? {};
    const underWay = started.filter(({ heldAt }) => Number(heldAt) >= startMs && Number(heldAt) < endMs);
    const held = sum(underWay.map(({ nano, tokens }) => BigInt(unit === 'usd' ? nano : tokens)));
    const spent = settled[index];
    return { unit, room: amount - ((unit === 'usd' ? spent?.nanoUsd : spent?.tokens) ?? 0n) - held };
  });
}

async function giveBack(sql: Sql, payer: TaskPayer, shareIds: readonly string[]): Promise<ShareAmounts> {
  await lockShares(sql, payer);
  const shares = (await readShares(sql, payer)).filter(({ shareId }) => shareIds.includes(shareId));
  // A limit of zero refuses every further hold, and leaves nothing that would be reserved.
  await sql.query(
    `update budgets set updated_at = now(),
       limits = (select coalesce(jsonb_agg(l || '{"amount": "0"}'), '[]') from jsonb_array_elements(limits) as l)
     where tenant_id = $1 and scope = 'share' and scope_id = any($2)`,
    [payer.tenantId, shares.map(({ shareId }) => shareId)],
  );
  const back = shares.map(unused);
  return {
    nanoUsd: sum(back.map(({ nanoUsd }) => nanoUsd)),
    tokens: sum(back.map(({ tokens }) => tokens)),
  };
}

function sum(amounts: readonly (bigint | undefined)[]): bigint {
  return amounts.reduce<bigint>((total, amount) => total + (amount ?? 0n), 0n);
}

function atLeastZero(amount: bigint): bigint {
  return amount < 0n ? 0n : amount;
}
