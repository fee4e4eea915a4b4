-- Asks to rebuild intervals of one scope. The fence is a random token: a counter would start again at 0 after a flush and let an old
-- reader pass.
-- KEYS: scope   ARGV: token, generation, runId, ttlMs, intervals...
-- Returns 'READY' (somebody rebuilt them), 'BUSY' (somebody is at it) or 'OK'
local _, intervals = validState(KEYS[1], ARGV[2] .. ':' .. ARGV[3])
local isReady = true
for at = 5, #ARGV do
  if not string.find(intervals, ARGV[at] .. ';', 1, true) then isReady = false end
end
if isReady then return 'READY' end
local under = redis.call('HGET', KEYS[1], 'hydrating')
local now = nowMs()
if under then
  local untilMs = tonumber(string.match(under, '|(%d+)$'))
  if untilMs and untilMs > now then return 'BUSY' end
end
redis.call('HDEL', KEYS[1], 'ended')
redis.call('HSET', KEYS[1], 'hydrating', string.format('%s|%.0f', ARGV[1], now + tonumber(ARGV[4])))
redis.call('PEXPIRE', KEYS[1], SCOPE_TTL_MS)
return 'OK'
