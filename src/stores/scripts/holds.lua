-- Shared by the scripts of one tenant's slot; each script file is appended to this text.
--
-- A hold is a JSON record in the hash `holds`, by attempt key:
--   {call, run (Redis' run id at the hold), nano (text), tokens (text), owner, generation, sent ('no' | 'yes' | 'unknown'), heldAt, seen,
--    scopes = {{kind, id, token}, ...}}
-- `token` is the scope's hydrate token under which the hold was counted there, or '' where it was not. A scope that was rebuilt
-- since has another token, and its rebuilt sums already say what this hold can no longer tell it: so a mismatch means "leave it".
--
-- A scope is a hash: hydrated ('<generation>:<run id>'), token, hydrating ('<token>|<until ms>'),
--   usd:settled, usd:held, tokens:settled, tokens:held.

local SCOPE_TTL_MS = 172800000

local function nowMs()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- The scope's key among KEYS, by kind and id, as the caller listed them.
local function scopeIndex(scopes, kind, id)
  for index, scope in ipairs(scopes) do
    if scope.kind == kind and scope.id == id then return index end
  end
end

-- Changes of a scope make a rebuild that is under way start again: it may have read Postgres before the change.
local function disturb(key)
  redis.call('HDEL', key, 'hydrating')
end

local function tokenOf(key)
  return redis.call('HGET', key, 'token') or ''
end

-- The token of a scope that counts for this server and generation, else ''. `wanted` is '<generation>:<run id>'.
local function validToken(key, wanted)
  if redis.call('HGET', key, 'hydrated') ~= wanted then return '' end
  return tokenOf(key)
end

-- Redis refuses '-0'.
local function negated(integerText)
  if integerText == '0' then return '0' end
  return '-' .. integerText
end

-- Takes a hold off its scopes and adds what was charged instead. Amounts stay text: no arithmetic on floats.
local function moveOut(record, scopes, costNano, tokens)
  for _, entry in ipairs(record.scopes) do
    local index = scopeIndex(scopes, entry[1], entry[2])
    if index then
      local key = scopes[index].key
      disturb(key)
      if entry[3] ~= '' and tokenOf(key) == entry[3] then
        redis.call('HINCRBY', key, 'usd:held', negated(record.nano))
        redis.call('HINCRBY', key, 'tokens:held', negated(record.tokens))
        redis.call('HINCRBY', key, 'usd:settled', costNano)
        redis.call('HINCRBY', key, 'tokens:settled', tokens)
        redis.call('PEXPIRE', key, SCOPE_TTL_MS)
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
