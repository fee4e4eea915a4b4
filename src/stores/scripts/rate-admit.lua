-- Admits one request to a provider, or says how long to wait. Buckets are GCRA (ITU-T I.371, the "virtual scheduling" form): `tat` is the
-- theoretical arrival time in microseconds. All checks come before the first write; idempotent in the attempt key.
-- KEYS: bucket (hash: rpm, tpm: tat; blocked: ms), permits (hash attemptKey -> tokens), leases (zset attemptKey -> ms)
-- ARGV: attemptKey, leaseMs, rpm or 0, rpm burst in requests, tpm or 0, tpm burst in tokens, tokens of this request, maxParallel or 0
-- Returns {'OK'} or {'WAIT', ms, dimension}
local attemptKey, leaseMs = ARGV[1], tonumber(ARGV[2])
local rpm, rpmBurst, tpm, tpmBurst = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local tokens, maxParallel = tonumber(ARGV[7]), tonumber(ARGV[8])
local MINUTE_US = 60000000

local time = redis.call('TIME')
local nowUs = tonumber(time[1]) * 1000000 + tonumber(time[2])
local nowMs = math.floor(nowUs / 1000)

-- Permits whose process died come back by their lease.
local lost = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', nowMs, 'LIMIT', 0, 100)
for _, key in ipairs(lost) do
  redis.call('ZREM', KEYS[3], key)
  redis.call('HDEL', KEYS[2], key)
end

if redis.call('HEXISTS', KEYS[2], attemptKey) == 1 then
  redis.call('ZADD', KEYS[3], nowMs + leaseMs, attemptKey)
  return { 'OK' }
end

-- A cost above the bucket's size passes alone, from a full bucket, and is paid off: the next one waits for it.
local function check(tat, limit, burst, cost)
  local interval = MINUTE_US / limit
  local from = math.max(tat, nowUs)
  local allowAt = from + (math.min(cost, burst) - burst) * interval
  return math.ceil(from + cost * interval), math.ceil((allowAt - nowUs) / 1000)
end

local state = redis.call('HMGET', KEYS[1], 'rpm', 'tpm', 'blocked')
local waitMs, dimension = (tonumber(state[3] or '0')) - nowMs, 'cooldown'
local nextRpm, nextTpm
if rpm > 0 then
  local ms
  nextRpm, ms = check(tonumber(state[1] or '0'), rpm, rpmBurst, 1)
  if ms > waitMs then waitMs, dimension = ms, 'rpm' end
end
if tpm > 0 then
  local ms
  nextTpm, ms = check(tonumber(state[2] or '0'), tpm, tpmBurst, tokens)
  if ms > waitMs then waitMs, dimension = ms, 'tpm' end
end
if waitMs > 0 then return { 'WAIT', waitMs, dimension } end
-- Nobody knows when a running call ends: a short, fixed wait, which the caller jitters.
if maxParallel > 0 and redis.call('ZCARD', KEYS[3]) >= maxParallel then return { 'WAIT', 500, 'maxParallel' } end

if nextRpm then redis.call('HSET', KEYS[1], 'rpm', string.format('%.0f', nextRpm)) end
if nextTpm then redis.call('HSET', KEYS[1], 'tpm', string.format('%.0f', nextTpm)) end
redis.call('HSET', KEYS[2], attemptKey, tokens)
redis.call('ZADD', KEYS[3], nowMs + leaseMs, attemptKey)
return { 'OK' }
