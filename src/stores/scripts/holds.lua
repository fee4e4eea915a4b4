-- Shared by the functions of one tenant's slot, which are loaded into Redis as one library: each script file is the body of a function of
-- KEYS and ARGV below this text. What is local here lives as long as the library: nothing but what can be computed again may be kept.
--
-- A scope is one string, so that all scopes of a call are read by one command and a counter is changed in place:
--   HEAD: hydrated ('<generation>:<run id>', '' where it must be rebuilt), hydrating (the token of the rebuild that is under way, or NONE)
--     and until when that one is waited for, version (the token of its last rebuild), the number of its counters;
--   a BLOCK for each counter: start and end of its interval in milliseconds (Lua knows no time zones; all time is 0 to infinity), the token
--     of the rebuild that made it; settled USD and tokens, held USD and tokens;
--   then '<attempt key> <nano> <tokens>;' for each attempt that ended during the rebuild that is under way.
-- Every counter of a scope counts every call, whoever asked for its limit, so that counters do not depend on who knows which limits.
-- Amounts are doubles. A sum that one cannot tell to the last digit becomes infinite, which is beyond any limit that may be set, until
-- the scope is rebuilt.
--
-- `holds` is a hash, by call: the RECORDs of its attempts one behind the other, the newest last:
--   heldAt, output tokens seen, nano, tokens, sent ('n', 'y', or 'u' for unknown), number of places, size of the record, attempt key; then a
--   PLACE for each scope, in the order in which the scopes of a payer are always named; then a TAIL: hydrated of the hold (where a record was
--   rebuilt, ''), owner, the names of the scopes ('<kind>:<id>', as their keys end) with line breaks between them.
--   PLACE: the scope's version at the hold (NONE where it was not hydrated), the number of counters in which the hold is counted, and the
--   first 32 bytes of each of these, which nothing else has. A counter that was rebuilt since has another token, and its rebuilt sums already
--   say what this hold can no longer tell it: so a mismatch means "leave it". In a scope of one counter the three are one piece of the scope.
--
-- `leases` is a sorted set of attempt keys by the moment until which each is believed to be alive: of those that were marked sent, and of
-- those that somebody looks after. A hold that was just made is alive for as long, by its heldAt (leaseOf).
--
-- What takes time is calls of Redis and the values that come back, tables and texts: so there are few of each.
local HEAD, BLOCK, RECORD, PLACE, TAIL = '<sc16dc16B', '<ddc16dddd', '<ddddc1BIs', '<c16B', '<sss'
-- A block without its token.
local COUNTER = '<ddxxxxxxxxxxxxxxxxdddd'
local BLOCK_SIZE, IDENTITY_SIZE = 64, 32
-- From the NUL behind `hydrated`: where the number of counters is, and where the first of them.
local COUNT_AT, BLOCKS_AT = 41, 42
-- A record, as far as its attempt key.
local FIXED, FIXED_SIZE = '<ddddc1BI', 38
local NONE = '----------------'
-- The place of a scope that is not hydrated.
local NOWHERE = NONE .. '\0'
local SCOPE_TTL_MS = 172800000
local EXACT, INFINITE = 9007199254740992, 1 / 0

-- Redis has its libraries ready for calls only, and not while this text is loaded: the first call puts them here.
local pack, read, sub, byte, find
function pack(...)
  pack = struct.pack
  return pack(...)
end
function read(...)
  read = struct.unpack
  return read(...)
end
function sub(...)
  sub = string.sub
  return sub(...)
end
function byte(...)
  byte = string.byte
  return byte(...)
end
function find(...)
  find = string.find
  return find(...)
end

-- Redis writes a number that it is given as one with a fraction, which takes long; those that are offsets are few.
local texts = {}
local function textOf(number)
  local text = texts[number]
  if not text then
    text = string.format('%d', number)
    texts[number] = text
  end
  return text
end

local function nowMs()
  local time = redis.call('TIME')
  return time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
end

local function sumOf(amount, change)
  local sum = amount + change
  if sum >= EXACT then return INFINITE end
  return sum
end

local function nameOf(start, stop)
  if stop == INFINITE then return 'all' end
  return string.format('%.0f-%.0f', start, stop)
end

local function boundsOf(interval)
  if interval == 'all' then return 0, INFINITE end
  local start, stop = string.match(interval, '^(%d+)-(%d+)$')
  return start + 0, stop + 0
end

-- Redis answers whole numbers of 64 bits.
local function told(amount)
  if amount == INFINITE then return EXACT end
  return amount
end

-- A record as it is written. `rest` is what is behind the attempt key.
local function written(record, rest)
  return pack(FIXED, record.heldAt, record.seen, record.nano, record.tokens, record.sent, record.count, FIXED_SIZE + #record.key + 1 + #rest)
    .. record.key .. '\0' .. rest
end

-- The record of an attempt, or of the newest one where none is asked for, in the text of its call; nil where there is none.
local function recordOf(text, attemptKey)
  local at, record = 1, nil
  while text and at <= #text do
    local heldAt, seen, nano, tokens, sent, count, size, key, places = read(RECORD, text, at)
    if key == attemptKey or not attemptKey then
      record = {
        at = at, size = size, places = places, sent = sent, heldAt = heldAt, seen = seen, nano = nano, tokens = tokens, key = key, count = count,
      }
      if attemptKey then return record end
    end
    at = at + size
  end
  return record
end

-- Where the tail of a record begins.
local function tailAt(text, record)
  local at = record.places
  for _ = 1, record.count do
    local _, counted, identities = read(PLACE, text, at)
    at = identities + IDENTITY_SIZE * counted
  end
  return at
end

-- Hydrated of the hold, owner, keys of the scopes.
local function tailOf(text, record) return read(TAIL, text, tailAt(text, record)) end

-- The text of a call without a record, and with another in its place.
local function replaced(text, record, with)
  return sub(text, 1, record.at - 1) .. with .. sub(text, record.at + record.size)
end

local function removeRecord(key, callKey, text, record)
  if record.size == #text then
    redis.call('HDEL', key, callKey)
  else
    redis.call('HSET', key, callKey, replaced(text, record, ''))
  end
end

-- What a record says is written anew, but for where it is counted.
local function writeRecord(key, callKey, text, record)
  local rest = sub(text, record.places, record.at + record.size - 1)
  redis.call('HSET', key, callKey, replaced(text, record, written(record, rest)))
end

-- Until when an attempt is believed to be alive; nil where nobody knows.
local function leaseOf(leases, record, attemptKey, leaseMs)
  local untilMs = redis.call('ZSCORE', leases, attemptKey)
  if untilMs then return untilMs + 0 end
  if record and record.sent == 'n' then return record.heldAt + leaseMs end
end

-- Whether something was written under a server process.
local function isOfRun(hydrated, runId)
  return string.match(hydrated, ':(.*)$') == runId
end

-- The version of a scope, or NONE where it does not count for this server and generation.
local function versionOf(state, wanted)
  if not state then return NONE end
  local hydrated, _, _, version = read(HEAD, state)
  if hydrated ~= wanted then return NONE end
  return version
end

-- Changes of a scope make a rebuild that is under way start again: it may have read Postgres before the change.
local function disturb(key, state)
  local hydrated, hydrating = read(HEAD, state)
  if hydrating ~= NONE then redis.call('SETRANGE', key, #hydrated + 1, NONE) end
end

-- What counts for the server process that it names alone need be known neither to a replica nor to the append-only file: it took as long to
-- tell them as to do it. That goes for counters, records and leases, and for nothing else: so whatever is told comes before this.
local function tellNobody() redis.set_repl(redis.REPL_NONE) end

-- The end of an attempt does not disturb: a rebuild that has read it as started is told here what became of it, and any other has read its
-- charge. A tenant whose calls end all the time would never be rebuilt else.
local function noteEnd(key, state, attemptKey, cost, tokens)
  if not state then return end
  local _, hydrating = read(HEAD, state)
  if hydrating ~= NONE then redis.call('APPEND', key, string.format('%s %.0f %.0f;', attemptKey, cost, tokens)) end
end

-- Takes a hold off its counters and adds what was charged instead. `at` is where its places begin; its scopes are the keys from `first` on.
local function moveOut(keys, first, text, at, count, attemptKey, nano, tokens, cost, used)
  if count == 0 then return end
  local states = redis.call('MGET', unpack(keys, first, first + count - 1))
  for index = 1, count do
    local state, identities = states[index], at + 17
    at = identities + IDENTITY_SIZE * byte(text, at + 16)
    if state then
      local head, isInfinite = find(state, '\0', 1, true), false
      local blocks = head + BLOCKS_AT
      for held = identities, at - 1, IDENTITY_SIZE do
        local identity = sub(text, held, held + IDENTITY_SIZE - 1)
        for block = blocks, blocks + BLOCK_SIZE * (byte(state, head + COUNT_AT) - 1), BLOCK_SIZE do
          if sub(state, block, block + IDENTITY_SIZE - 1) == identity then
            local settledUsd, settledTokens, heldUsd, heldTokens = read('<dddd', state, block + IDENTITY_SIZE)
            isInfinite = isInfinite or heldUsd == INFINITE or heldTokens == INFINITE
            redis.call('SETRANGE', keys[first + index - 1], textOf(block + IDENTITY_SIZE - 1), pack('<dddd', sumOf(settledUsd, cost),
              sumOf(settledTokens, used), heldUsd - nano, heldTokens - tokens))
            break
          end
        end
      end
      if sub(state, head + 1, head + 16) ~= NONE then noteEnd(keys[first + index - 1], state, attemptKey, cost, used) end
      -- Infinity is never counted down.
      if isInfinite then redis.call('DEL', keys[first + index - 1]) end
    end
  end
end

-- An attempt that nobody is known to have marked is about to be booked as if it was sent. A counter that was rebuilt before its row was
-- there does not know it, and would never be told: it is rebuilt once more. Holds that relied on it are not marked any more.
local function forgetUncounted(keys, first, text, record)
  local states, at = redis.call('MGET', unpack(keys, first)), record.places
  for index = 1, record.count do
    local _, counted, identities = read(PLACE, text, at)
    at = identities + IDENTITY_SIZE * counted
    local state = states[index]
    if state then
      local counts = sub(text, identities, at - 1)
      local _, _, _, _, blocks, from = read(HEAD, state)
      for block = from, from + BLOCK_SIZE * (blocks - 1), BLOCK_SIZE do
        local start, stop = read(BLOCK, state, block)
        local isCounted = find(counts, sub(state, block, block + IDENTITY_SIZE - 1), 1, true)
        if record.heldAt >= start and record.heldAt < stop and not isCounted then redis.call('DEL', keys[first + index - 1]) end
      end
    end
  end
end

-- The record of an attempt that is counted nowhere. Its fields may be texts.
local function uncounted(sent, attempt, scopeCount)
  local record = {
    sent = sent, heldAt = attempt.heldAt + 0, seen = 0, nano = attempt.nano + 0, tokens = attempt.tokens + 0, key = attempt.key,
    count = scopeCount,
  }
  return written(record, string.rep(NOWHERE, scopeCount) .. pack(TAIL, '', attempt.owner, attempt.scopes))
end

-- Where the counter of an interval is in a scope; nil where it has none.
local function blockOf(state, interval)
  local wantedStart, wantedStop = boundsOf(interval)
  local _, _, _, _, blocks, from = read(HEAD, state)
  for block = from, from + BLOCK_SIZE * (blocks - 1), BLOCK_SIZE do
    local start, stop = read(BLOCK, state, block)
    if start == wantedStart and stop == wantedStop then return block end
  end
end
