-- Shared by the scripts of one tenant's slot; each script file is appended to this text.
--
-- A scope is a hash: hydrated ('<generation>:<run id>'), version (the token of its last rebuild), hydrating ('<token>|<until ms>'),
--   intervals ('<interval>;<interval>;', the ones that are counted) and for each of them
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

-- Redis refuses '-0'.
local function negated(integerText)
  if integerText == '0' then return '0' end
  return '-' .. integerText
end

-- Takes a hold off its counters and adds what was charged instead. Amounts stay text: no arithmetic on floats.
local function moveOut(record, scopes, costNano, tokens)
  for _, entry in ipairs(record.scopes) do
    local index = scopeIndex(scopes, entry[1], entry[2])
    if index then
      local key = scopes[index].key
      disturb(key)
      for at = 4, #entry, 2 do
        local interval = entry[at]
        if redis.call('HGET', key, interval .. ':token') == entry[at + 1] then
          redis.call('HINCRBY', key, interval .. ':usd:held', negated(record.nano))
          redis.call('HINCRBY', key, interval .. ':tokens:held', negated(record.tokens))
          if costNano ~= '0' then redis.call('HINCRBY', key, interval .. ':usd:settled', costNano) end
          if tokens ~= '0' then redis.call('HINCRBY', key, interval .. ':tokens:settled', tokens) end
        end
      end
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
