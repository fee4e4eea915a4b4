-- Shared by the functions of one tenant's slot, which are loaded into Redis as one library: each script file is the body of a function of
-- KEYS and ARGV below this text. What is local here lives as long as the library: nothing but what can be computed again may be kept.
--
-- A scope is one string, so that all scopes of a call are read by one command and a counter is changed in place:
--   HEAD: hydrated ('<generation>:<run id>', '' where it must be rebuilt), version (the token of its last rebuild), hydrating (the token of
--     the rebuild that is under way, or NONE) and until when that one is waited for, the number of its counters;
--   a BLOCK for each counter: start and end of its interval in milliseconds (Lua knows no time zones; all time is 0 to infinity), the token
--     of the rebuild that made it; settled USD and tokens, held USD and tokens;
--   then '<attempt key> <nano> <tokens>;' for each attempt that ended during the rebuild that is under way.
-- Every counter of a scope counts every call, whoever asked for its limit, so that counters do not depend on who knows which limits.
-- Amounts are doubles. A sum that one cannot tell to the last digit becomes infinite, which is beyond any limit that may be set, until
-- the scope is rebuilt.
--
-- `holds` is a hash, by call: the RECORDs of its attempts one behind the other, the newest last, each with a PLACE for each scope:
--   sent ('n', 'y', or 'u' for unknown), heldAt, output tokens seen, nano, tokens, attempt key, hydrated of the hold (where a record was
--   rebuilt, ''), owner, number of scopes; PLACE: the scope's key and its version at the hold (NONE where it was not hydrated), the number
--   of counters in which the hold is counted, and the first 32 bytes of each of these, which nothing else has. A counter that was rebuilt
--   since has another token, and its rebuilt sums already say what this hold can no longer tell it: so a mismatch means "leave it".
--
-- What takes time is calls of Redis and the values that come back, tables and texts: so there are few of each.
local HEAD, BLOCK, RECORD, PLACE = '<sc16c16dB', '<ddc16dddd', '<c1ddddsssB', '<sc16B'
-- A block without its token.
local COUNTER = '<ddxxxxxxxxxxxxxxxxdddd'
local BLOCK_SIZE, IDENTITY_SIZE = 64, 32
local NONE = '----------------'
local SCOPE_TTL_MS = 172800000
local EXACT, INFINITE = 9007199254740992, 1 / 0

-- Redis has its libraries ready for calls only, and not while this text is loaded: the first call puts them here.
local pack, read
function pack(...)
  pack = struct.pack
  return pack(...)
end
function read(...)
  read = struct.unpack
  return read(...)
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

-- Where a record ends.
local function endOf(text, record)
  local at = record.places
  for _ = 1, record.count do
    local _, _, counted, identities = read(PLACE, text, at)
    at = identities + IDENTITY_SIZE * counted
  end
  return at
end

-- The record of an attempt, or of the newest one where none is asked for, in the text of its call; nil where there is none.
local function recordOf(text, attemptKey)
  local at, record = 1, nil
  while text and at <= #text do
    local sent, heldAt, seen, nano, tokens, key, hydrated, owner, count, places = read(RECORD, text, at)
    record = {
      at = at, places = places, sent = sent, heldAt = heldAt, seen = seen, nano = nano, tokens = tokens, key = key,
      hydrated = hydrated, owner = owner, count = count,
    }
    if key == attemptKey then return record end
    at = endOf(text, record)
  end
  if not attemptKey then return record end
end

-- The text of a call without a record, and with another in its place.
local function replaced(text, record, with)
  return string.sub(text, 1, record.at - 1) .. with .. string.sub(text, endOf(text, record))
end

local function removeRecord(key, callKey, text, record)
  if record.at == 1 and endOf(text, record) == #text + 1 then
    redis.call('HDEL', key, callKey)
  else
    redis.call('HSET', key, callKey, replaced(text, record, ''))
  end
end

-- What a record says is written anew, but for where it is counted.
local function writeRecord(key, callKey, text, record)
  redis.call('HSET', key, callKey, replaced(text, record, pack(RECORD, record.sent, record.heldAt, record.seen, record.nano, record.tokens,
    record.key, record.hydrated, record.owner, record.count) .. string.sub(text, record.places, endOf(text, record) - 1)))
end

-- Whether something was written under a server process.
local function isOfRun(hydrated, runId)
  return string.match(hydrated, ':(.*)$') == runId
end

-- The version of a scope, or NONE where it does not count for this server and generation.
local function versionOf(state, wanted)
  if not state then return NONE end
  local hydrated, version = read(HEAD, state)
  if hydrated ~= wanted then return NONE end
  return version
end

-- Changes of a scope make a rebuild that is under way start again: it may have read Postgres before the change.
local function disturb(key, state)
  local hydrated, _, hydrating = read(HEAD, state)
  if hydrating ~= NONE then redis.call('SETRANGE', key, #hydrated + 17, NONE) end
end

-- Counters count for the server process that they name alone, so that neither a replica nor the append-only file need their changes: it
-- took as long to tell them as to make them. What comes after is told again.
local function tellNobody() redis.set_repl(redis.REPL_NONE) end

local function tellAll() redis.set_repl(redis.REPL_ALL) end

-- The index of a scope's key among KEYS; mostly the one at which it is in a record as well.
local function indexOf(keys, key, first, guess)
  if keys[first + guess - 1] == key then return first + guess - 1 end
  for index = first, #keys do
    if keys[index] == key then return index end
  end
end

-- The end of an attempt does not: a rebuild that has read it as started is told here what became of it, and any other has read its charge.
-- A tenant whose calls end all the time would never be rebuilt else.
local function noteEnd(key, state, attemptKey, cost, tokens)
  if not state then return end
  local _, _, hydrating = read(HEAD, state)
  if hydrating ~= NONE then redis.call('APPEND', key, string.format('%s %.0f %.0f;', attemptKey, cost, tokens)) end
end

-- Takes a hold off its counters and adds what was charged instead. Scopes are the keys from `first` on.
local function moveOut(keys, first, text, record, cost, tokens)
  local states, at = redis.call('MGET', unpack(keys, first)), record.places
  tellNobody()
  for place = 1, record.count do
    local key, _, counted, identities = read(PLACE, text, at)
    at = identities + IDENTITY_SIZE * counted
    local index = indexOf(keys, key, first, place)
    local state = index and states[index - first + 1]
    if state then
      local _, _, hydrating, _, blocks, from = read(HEAD, state)
      local isInfinite = false
      for block = from, from + BLOCK_SIZE * (blocks - 1), BLOCK_SIZE do
        local identity = string.sub(state, block, block + IDENTITY_SIZE - 1)
        for held = identities, at - 1, IDENTITY_SIZE do
          if string.sub(text, held, held + IDENTITY_SIZE - 1) == identity then
            local settledUsd, settledTokens, heldUsd, heldTokens = read('<dddd', state, block + IDENTITY_SIZE)
            isInfinite = isInfinite or heldUsd == INFINITE or heldTokens == INFINITE
            redis.call('SETRANGE', key, block + IDENTITY_SIZE - 1, pack('<dddd', sumOf(settledUsd, cost), sumOf(settledTokens, tokens),
              heldUsd - record.nano, heldTokens - record.tokens))
          end
        end
      end
      if hydrating ~= NONE then noteEnd(key, state, record.key, cost, tokens) end
      -- Infinity is never counted down.
      if isInfinite then redis.call('DEL', key) end
    end
  end
  tellAll()
end

-- An attempt that nobody is known to have marked is about to be booked as if it was sent. A counter that was rebuilt before its row was
-- there does not know it, and would never be told: it is rebuilt once more. Holds that relied on it are not marked any more.
local function forgetUncounted(keys, first, text, record)
  local states, at = redis.call('MGET', unpack(keys, first)), record.places
  for place = 1, record.count do
    local key, _, counted, identities = read(PLACE, text, at)
    at = identities + IDENTITY_SIZE * counted
    local index = indexOf(keys, key, first, place)
    local state = index and states[index - first + 1]
    if state then
      local counts = string.sub(text, identities, at - 1)
      local _, _, _, _, blocks, from = read(HEAD, state)
      for block = from, from + BLOCK_SIZE * (blocks - 1), BLOCK_SIZE do
        local start, stop = read(BLOCK, state, block)
        local isCounted = string.find(counts, string.sub(state, block, block + IDENTITY_SIZE - 1), 1, true)
        if record.heldAt >= start and record.heldAt < stop and not isCounted then redis.call('DEL', key) end
      end
    end
  end
end

-- The record of an attempt that is counted nowhere. Its fields may be texts.
local function uncounted(sent, attempt, ...)
  local parts = { pack(RECORD, sent, attempt.heldAt + 0, 0, attempt.nano + 0, attempt.tokens + 0, attempt.key, '', attempt.owner, select('#', ...)) }
  for index, key in ipairs({ ... }) do parts[1 + index] = pack(PLACE, key, NONE, 0) end
  return table.concat(parts)
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
