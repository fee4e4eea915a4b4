-- Holds an estimate on every scope of a call, or on none. All checks come before the first write. Idempotent in the attempt key.
-- KEYS: holds, leases, call, done of this attempt, done of the previous attempt, scopes...
-- ARGV: attemptKey, callKey, owner, generation, runId, leaseMs, nano, tokens, previous attempt or '', ttlMs, number of scopes,
--       kind and id per scope, then JSON: [{scope (1-based), unit, amount}] of the hard limits
-- Returns {'OK', heldAtMs} · {'DONE', marker} · {'MISS', scope index...} · {'PREVIOUS', attemptKey}
--         · {'REFUSED' | 'HELD', limit index, settled, held}
local attemptKey, callKey, owner, generation, runId = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local leaseMs, nano, tokens, previousKey, ttlMs = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local count = tonumber(ARGV[11])
local scopes = readScopes(6, 12, count)
local limits = cjson.decode(ARGV[12 + 2 * count])

-- The marker comes before the record: an attempt that is over is never revived by a repeated command.
local marker = redis.call('GET', KEYS[4])
if marker then return { 'DONE', marker } end
local own = redis.call('HGET', KEYS[1], attemptKey)
if own then return { 'OK', cjson.decode(own).heldAt } end

-- An older attempt of this call that was not sent yet gives way. Two attempts of one call can be here at once when a frozen worker
-- wakes up: after this its mark-sent fails.
local older = nil
local newest = redis.call('GET', KEYS[3])
if newest and newest ~= attemptKey then
  local record = redis.call('HGET', KEYS[1], newest)
  if record then
    local decoded = cjson.decode(record)
    -- A record of another server process may be older than its "sent".
    if decoded.sent == 'no' and decoded.run == runId then
      if newest ~= previousKey then return { 'PREVIOUS', newest } end
      older = decoded
    end
  end
end

local wanted = generation .. ':' .. runId
local missing = { 'MISS' }
local limited = {}
for _, limit in ipairs(limits) do limited[limit.scope] = true end
for index, scope in ipairs(scopes) do
  if limited[index] and validToken(scope.key, wanted) == '' then missing[#missing + 1] = index end
end
if #missing > 1 then return missing end

-- What the older hold will give back counts as free.
local function givenBack(scope, unit)
  if not older then return 0 end
  for _, entry in ipairs(older.scopes) do
    if entry[1] == scope.kind and entry[2] == scope.id and entry[3] ~= '' and entry[3] == validToken(scope.key, wanted) then
      return tonumber(unit == 'usd' and older.nano or older.tokens)
    end
  end
  return 0
end

local waiting = nil
for index, limit in ipairs(limits) do
  local scope = scopes[limit.scope]
  local settled = tonumber(redis.call('HGET', scope.key, limit.unit .. ':settled') or '0')
  local held = tonumber(redis.call('HGET', scope.key, limit.unit .. ':held') or '0') - givenBack(scope, limit.unit)
  local needed = tonumber(limit.unit == 'usd' and nano or tokens)
  local amount = tonumber(limit.amount)
  local answer = { index, string.format('%.0f', settled), string.format('%.0f', held) }
  -- A limit of 0 has no room even for a call that costs nothing.
  if settled + needed > amount or amount == 0 then return { 'REFUSED', answer[1], answer[2], answer[3] } end
  if settled + held + needed > amount and not waiting then waiting = { 'HELD', answer[1], answer[2], answer[3] } end
end
if waiting then return waiting end

if older then
  moveOut(older, scopes, '0', '0')
  redis.call('HDEL', KEYS[1], newest)
  redis.call('ZREM', KEYS[2], newest)
  redis.call('SET', KEYS[5], 'void', 'PX', ttlMs)
end
local heldAt = nowMs()
local record = {
  call = callKey, run = runId, nano = nano, tokens = tokens, owner = owner, generation = generation,
  sent = 'no', heldAt = string.format('%.0f', heldAt), seen = '0', scopes = {},
}
for index, scope in ipairs(scopes) do
  local token = validToken(scope.key, wanted)
  if token ~= '' then
    redis.call('HINCRBY', scope.key, 'usd:held', nano)
    redis.call('HINCRBY', scope.key, 'tokens:held', tokens)
    redis.call('PEXPIRE', scope.key, SCOPE_TTL_MS)
  end
  record.scopes[index] = { scope.kind, scope.id, token }
end
redis.call('HSET', KEYS[1], attemptKey, cjson.encode(record))
redis.call('ZADD', KEYS[2], heldAt + leaseMs, attemptKey)
redis.call('SET', KEYS[3], attemptKey, 'PX', ttlMs)
return { 'OK', record.heldAt }
