-- Shared by the scripts of one tenant's slot; each script file is appended to this text.
--
-- A scope is a hash: hydrated ('<generation>:<run id>'), version (the token of its last rebuild), hydrating ('<token>|<until ms>'),
--   ended ('<attempt key> <nano> <tokens>;...', what ended during the rebuild that is under way), intervals ('<interval>;<interval>;', the ones that are counted) and for each of them
--   <interval>:token (of the rebuild that made it), <interval>:usd:settled, :usd:held, :tokens:settled, :tokens:held.
-- An interval is 'all', or '<start>-<end>' in milliseconds: Lua knows no time zones. Every hydrated interval of a scope counts every
-- call, whoever asked for its limit, so that counters do not depend on who knows which limits.
--
-- A hold is a JSON record in the hash `holds`, by attempt key:
--   {call, run (Redis' run id at the hold), nano (text), tokens (text), owner, generation, sent ('no' | 'yes' | 'unknown'), heldAt, seen,
--    scopes = {{kind, id, version, interval, token, interval, token, ...}, ...}}
-- The pairs name where the hold is counted. A counter that was rebuilt since has another token, and its rebuilt sums already say what
-- this hold can no longer tell it: so a mismatch means "leave it". `version` is the scope's at the hold, '' where it was not hydrated.

local SCOPE_TTL_MS = 172800000

local function nowMs()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- The scope's index among KEYS, by kind and id, as the caller listed them.
local function scopeIndex(scopes, kind, id)
  for index, scope in ipairs(scopes) do
    if scope.kind == kind and scope.id == id then return index end
  end
end

-- Changes of a scope make a rebuild that is under way start again: it may have read Postgres before the change.
local function disturb(key)
  redis.call('HDEL', key, 'hydrating')
end

-- The end of an attempt does not: a rebuild that has read it as started is told here what became of it, and any other has read its charge.
-- A tenant whose calls end all the time would never be rebuilt else.
local function noteEnd(key, attemptKey, costNano, tokens)
  local found = redis.call('HMGET', key, 'hydrating', 'ended')
  if found[1] then
    redis.call('HSET', key, 'ended', (found[2] or '') .. attemptKey .. ' ' .. costNano .. ' ' .. tokens .. ';')
  end
end

local function covers(interval, ms)
  if interval == 'all' then return true end
  local from, to = string.match(interval, '^(%d+)-(%d+)$')
  return ms >= tonumber(from) and ms < tonumber(to)
end

-- The version and the intervals of a scope that count for this server and generation; '' and '' when it must be rebuilt.
local function validState(key, wanted)
  local state = redis.call('HMGET', key, 'hydrated', 'version', 'intervals')
  if state[1] ~= wanted then return '', '' end
  return state[2], state[3]
end

-- The fields of an interval: settled and held in USD, settled and held in tokens, and its token.
local namesByInterval = {}
local function namesOf(interval)
  local names = namesByInterval[interval]
  if not names then
    names = {
      interval .. ':usd:settled', interval .. ':usd:held', interval .. ':tokens:settled', interval .. ':tokens:held', interval .. ':token',
    }
    namesByInterval[interval] = names
  end
  return names
end

-- A sum as text, or nil where a double could not tell it to the last digit: HINCRBY can. A text becomes a number by "+ 0", which reads
-- it once; tonumber reads it twice.
local function sumOf(text, change)
  local number = text + 0
  if (number < 0 and -number or number) + (change < 0 and -change or change) < 9007199254740992 then
    return string.format('%d', number + change)
  end
end

-- Redis refuses '-0'.
local function negated(integerText)
  if integerText == '0' then return '0' end
  return '-' .. integerText
end

-- Takes a hold off its counters and adds what was charged instead. One HSET of sums costs half of what as many HINCRBY do.
local function moveOut(attemptKey, record, scopes, costNano, tokens)
  local heldNano, heldTokens, moreNano, moreTokens = -record.nano, -record.tokens, costNano + 0, tokens + 0
  for _, entry in ipairs(record.scopes) do
    local index = scopeIndex(scopes, entry[1], entry[2])
    if index then
      local key = scopes[index].key
      local isRebuilding = not entry[4]
      for at = 4, #entry, 2 do
        local names = namesOf(entry[at])
        local found = redis.call('HMGET', key, names[1], names[2], names[3], names[4], names[5], 'hydrating')
        if found[6] then isRebuilding = true end
        if found[5] == entry[at + 1] then
          local settledUsd, heldUsd = sumOf(found[1], moreNano), sumOf(found[2], heldNano)
          local settledTokens, stillHeldTokens = sumOf(found[3], moreTokens), sumOf(found[4], heldTokens)
          if settledUsd and heldUsd and settledTokens and stillHeldTokens then
            redis.call('HSET', key, names[1], settledUsd, names[2], heldUsd, names[3], settledTokens, names[4], stillHeldTokens)
          else
            redis.call('HINCRBY', key, names[1], costNano)
            redis.call('HINCRBY', key, names[2], negated(record.nano))
            redis.call('HINCRBY', key, names[3], tokens)
            redis.call('HINCRBY', key, names[4], negated(record.tokens))
          end
        end
      end
      if isRebuilding then noteEnd(key, attemptKey, costNano, tokens) end
    end
  end
end

-- Reads kind and id pairs from ARGV beside the scope keys in KEYS.
local function readScopes(firstKey, firstArg, count)
  local scopes = {}
  for index = 1, count do
    scopes[index] = {
      key = KEYS[firstKey + index - 1],
      kind = ARGV[firstArg + 2 * (index - 1)],
      id = ARGV[firstArg + 2 * (index - 1) + 1],
    }
  end
  return scopes
end
