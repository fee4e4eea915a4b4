-- Puts back the record and lease of an attempt that Postgres knows as started and Redis has lost. It counts nowhere yet: a scope that
-- is rebuilt from Postgres counts it then. KEYS: holds, leases, done, scopes...
-- ARGV: attemptKey, callKey, leaseMs, 'y' or 'u', heldAt in ms, nano, tokens, owner, names of the scopes as in a record
-- Returns 1, 0 when its record is there, or -1 when Redis knows the attempt as over
local attemptKey, callKey = ARGV[1], ARGV[2]
if redis.call('EXISTS', KEYS[3]) == 1 then return -1 end
local text = redis.call('HGET', KEYS[1], callKey)
local isThere = recordOf(text, attemptKey) ~= nil
tellNobody()
if not isThere then
  local record = uncounted(ARGV[4], { key = attemptKey, heldAt = ARGV[5], nano = ARGV[6], tokens = ARGV[7], owner = ARGV[8], scopes = ARGV[9] }, #KEYS - 3)
  redis.call('HSET', KEYS[1], callKey, record .. (text or ''))
end
if not isThere or not redis.call('ZSCORE', KEYS[2], attemptKey) then
  redis.call('ZADD', KEYS[2], nowMs() + ARGV[3], attemptKey)
end
return isThere and 0 or 1
