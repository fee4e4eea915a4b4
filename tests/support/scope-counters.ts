// What Redis counts for a scope, read and changed as no caller can: for tests that look behind the gate.

import { loadScript, type Redis } from '../../src/stores/redis.ts';
import { toCallKeyOfAttempt } from '../../src/task/keys.ts';

const shared = loadScript('holds').lua;

const READ = `${shared}
local state = redis.call('GET', KEYS[1])
if not state then return {} end
local hydrated, hydrating, _, version, blocks, from = read(HEAD, state)
local answer = { 'hydrated', hydrated, 'version', version }
local function add(name, value) answer[#answer + 1], answer[#answer + 2] = name, value end
if hydrating ~= NONE then add('hydrating', hydrating) end
local names = {}
for block = from, from + BLOCK_SIZE * (blocks - 1), BLOCK_SIZE do
  local start, stop, token, settledUsd, settledTokens, heldUsd, heldTokens = read(BLOCK, state, block)
  local name = nameOf(start, stop)
  names[#names + 1] = name .. ';'
  add(name .. ':token', token)
  add(name .. ':usd:settled', string.format('%.0f', settledUsd))
  add(name .. ':tokens:settled', string.format('%.0f', settledTokens))
  add(name .. ':usd:held', string.format('%.0f', heldUsd))
  add(name .. ':tokens:held', string.format('%.0f', heldTokens))
end
add('intervals', table.concat(names))
local ended = string.sub(state, from + BLOCK_SIZE * blocks)
if ended ~= '' then add('ended', ended) end
return answer`;

const CHANGE = `${shared}
local state = redis.call('GET', KEYS[1])
local hydrated, hydrating, untilMs, version, blocks, from = read(HEAD, state)
local rest = string.sub(state, from)
if ARGV[1] ~= '=' then hydrated = ARGV[1] end
redis.call('SET', KEYS[1], pack(HEAD, hydrated, hydrating, untilMs, version, blocks) .. rest, 'KEEPTTL')
if ARGV[2] == '' then return 1 end
local at = blockOf(redis.call('GET', KEYS[1]), ARGV[2])
local amounts = { read('<dddd', redis.call('GET', KEYS[1]), at + IDENTITY_SIZE) }
for place = 1, 4 do
  local change = ARGV[2 + place]
  if string.sub(change, 1, 1) == '=' then amounts[place] = string.sub(change, 2) + 0 else amounts[place] = amounts[place] + change end
end
redis.call('SETRANGE', KEYS[1], at + IDENTITY_SIZE - 1, pack('<dddd', unpack(amounts, 1, 4)))
return 1`;

/** Fields by name: `hydrated`, `version`, `intervals` and per interval `<interval>:usd:settled` and so on; none where there is no scope. */
export async function readCounters(
  { command }: Pick<Redis, 'command'>,
  key: string,
): Promise<Readonly<Record<string, string>>> {
  const flat = (await command((client) => client.eval(READ, 1, key))) as readonly string[];
  return Object.fromEntries(
    Array.from({ length: flat.length / 2 }, (_, n) => [flat[2 * n] ?? '', flat[2 * n + 1] ?? '']),
  );
}

/** Amounts are added, or set where they begin with `=`. `hydrated` is left as it is unless given. */
export async function changeCounters(
  { command }: Pick<Redis, 'command'>,
  key: string,
  change: {
    readonly hydrated?: string;
    readonly interval?: string;
    readonly settledUsd?: string;
    readonly settledTokens?: string;
    readonly heldUsd?: string;
    readonly heldTokens?: string;
  },
): Promise<void> {
  const {
    hydrated = '=',
    interval = '',
    settledUsd = '0',
    settledTokens = '0',
    heldUsd = '0',
    heldTokens = '0',
  } = change;
  await command((client) =>
    client.eval(CHANGE, 1, key, hydrated, interval, settledUsd, settledTokens, heldUsd, heldTokens),
  );
}

const CHANGE_RECORD = `${shared}
local text = redis.call('HGET', KEYS[1], ARGV[2])
local record = recordOf(text, ARGV[1])
if ARGV[3] ~= '=' then record.sent = ARGV[3] end
local tail = tailAt(text, record)
local hydrated, owner, scopes = read(TAIL, text, tail)
if ARGV[4] ~= '=' then hydrated = ARGV[4] end
local rest = string.sub(text, record.places, tail - 1) .. pack(TAIL, hydrated, owner, scopes)
redis.call('HSET', KEYS[1], ARGV[2], replaced(text, record, written(record, rest)))
return 1`;

/** As a snapshot may say it: whether the attempt was sent, and under which server and generation it was held. */
export async function changeRecord(
  { command }: Pick<Redis, 'command'>,
  holds: string,
  attemptKey: string,
  change: { readonly sent?: 'n' | 'y' | 'u'; readonly hydrated?: string },
): Promise<void> {
  await command((client) =>
    client.eval(
      CHANGE_RECORD,
      1,
      holds,
      attemptKey,
      toCallKeyOfAttempt(attemptKey),
      change.sent ?? '=',
      change.hydrated ?? '=',
    ),
  );
}
