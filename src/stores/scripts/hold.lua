-- Holds an estimate on every scope of a call, or on none. All checks come before the first write. Idempotent in the attempt key.
-- KEYS: holds, leases, call, done of this attempt, done of the previous attempt, scopes...
-- ARGV: attemptKey, callKey, owner, generation, runId, leaseMs, nano, tokens, previous attempt or '', ttlMs, number of scopes,
--       kind and id per scope, number of limits, then per limit: scope (1-based), unit, amount, 1 when hard, and the bounds of its
--       current and next interval: start, turn, end (three times '' for all time)
-- Returns {'OK', heldAtMs, settled, held and interval per limit...} · {'DONE', marker} · {'STALE_WINDOW', nowMs}
--         · {'MISS', scope index, interval, ...} · {'PREVIOUS', attemptKey} · {'REFUSED' | 'HELD', limit index, settled, held, interval}
local attemptKey, callKey, owner, generation, runId = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local leaseMs, nano, tokens, previousKey, ttlMs = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local count = tonumber(ARGV[11])
local scopes = readScopes(6, 12, count)
local limitCount = tonumber(ARGV[12 + 2 * count])

-- The marker comes before the record: an attempt that is over is never revived by a repeated command.
local marker = redis.call('GET', KEYS[4])
if marker then return { 'DONE', marker } end

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
local own = newest and redis.call('HGET', KEYS[1], attemptKey)
if own then own = cjson.decode(own) end

local now = nowMs()
local wanted = generation .. ':' .. runId
for index = 1, count do
  local scope = scopes[index]
  scope.version, scope.intervals = validState(scope.key, wanted)
  scope.counters = {}
end

-- settled and held of one interval, in USD and in tokens, as texts, and its token.
local function counterOf(scope, interval)
  local known = scope.counters[interval]
  if known then return known end
  local found = redis.call('HMGET', scope.key, interval .. ':usd:settled', interval .. ':usd:held',
    interval .. ':tokens:settled', interval .. ':tokens:held', interval .. ':token')
  scope.counters[interval] = found
  return found
end

local limits = {}
local missing = { 'MISS' }
for number = 1, limitCount do
  local at = 13 + 2 * count + (number - 1) * 7
  local limit = { scope = tonumber(ARGV[at]), unit = ARGV[at + 1], amount = tonumber(ARGV[at + 2]), hard = ARGV[at + 3] == '1' }
  local start, turn, stop = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  if start == '' then
    limit.interval, limit.stop = 'all', math.huge
  elseif now >= tonumber(start) and now < tonumber(turn) then
    limit.interval, limit.stop = start .. '-' .. turn, tonumber(turn)
  elseif now >= tonumber(turn) and now < tonumber(stop) then
    limit.interval, limit.stop = turn .. '-' .. stop, tonumber(stop)
  else
    return { 'STALE_WINDOW', string.format('%.0f', now) }
  end
  limits[number] = limit
  if not string.find(scopes[limit.scope].intervals, limit.interval .. ';', 1, true) then
    missing[#missing + 1] = limit.scope
    missing[#missing + 1] = limit.interval
  end
end
if own then return { 'OK', own.heldAt } end
if #missing > 1 then return missing end

-- What the older hold will give back counts as free.
local function givenBack(scope, interval, unit, token)
  if not older then return 0 end
  for _, entry in ipairs(older.scopes) do
    if entry[1] == scope.kind and entry[2] == scope.id then
      for at = 4, #entry, 2 do
        if entry[at] == interval and entry[at + 1] == token then return tonumber(unit == 'usd' and older.nano or older.tokens) end
      end
    end
  end
  return 0
end

local answer = { 'OK', '' }
local refused, refusedStop, waiting = nil, -1, nil
for number, limit in ipairs(limits) do
  local scope = scopes[limit.scope]
  local counter = counterOf(scope, limit.interval)
  local settled, held, needed
  if limit.unit == 'usd' then
    settled, held, needed = counter[1], counter[2], nano
  else
    settled, held, needed = counter[3], counter[4], tokens
  end
  if older then held = string.format('%.0f', tonumber(held) - givenBack(scope, limit.interval, limit.unit, counter[5])) end
  answer[#answer + 1], answer[#answer + 2], answer[#answer + 3] = settled, held, limit.interval
  if limit.hard then
    local spent, more = tonumber(settled), tonumber(needed)
    -- A limit of 0 has no room even for a call that costs nothing. Of several that refuse, the one that turns last is told.
    if (spent + more > limit.amount or limit.amount == 0) and limit.stop > refusedStop then
      refused, refusedStop = { 'REFUSED', number, settled, held, limit.interval }, limit.stop
    end
    if not waiting and spent + tonumber(held) + more > limit.amount then
      waiting = { 'HELD', number, settled, held, limit.interval }
    end
  end
end
if refused then return refused end
if waiting then return waiting end

if older then
  moveOut(older, scopes, '0', '0')
  redis.call('HDEL', KEYS[1], newest)
  redis.call('ZREM', KEYS[2], newest)
  redis.call('SET', KEYS[5], 'void', 'PX', ttlMs)
end
local record = {
  call = callKey, run = runId, nano = nano, tokens = tokens, owner = owner, generation = generation,
  sent = 'no', heldAt = string.format('%.0f', now), seen = '0', scopes = {},
}
for index, scope in ipairs(scopes) do
  local entry = { scope.kind, scope.id, scope.version }
  for interval in string.gmatch(scope.intervals, '([^;]+);') do
    if covers(interval, now) then
      redis.call('HINCRBY', scope.key, interval .. ':usd:held', nano)
      redis.call('HINCRBY', scope.key, interval .. ':tokens:held', tokens)
      entry[#entry + 1], entry[#entry + 2] = interval, counterOf(scope, interval)[5]
    end
  end
  record.scopes[index] = entry
end
redis.call('HSET', KEYS[1], attemptKey, cjson.encode(record))
redis.call('ZADD', KEYS[2], now + leaseMs, attemptKey)
redis.call('SET', KEYS[3], attemptKey, 'PX', ttlMs)
answer[2] = record.heldAt
return answer
