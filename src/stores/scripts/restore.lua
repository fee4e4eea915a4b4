-- Puts back the record and lease of an attempt that Postgres knows as started and Redis has lost. It counts nowhere yet: a scope that
-- is rebuilt from Postgres counts it then. KEYS: holds, leases, done
-- ARGV: attemptKey, leaseMs, record as JSON
-- Returns 1, 0 when its record is there, or -1 when Redis knows the attempt as over
if redis.call('EXISTS', KEYS[3]) == 1 then return -1 end
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[3]) == 0 then
  if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then redis.call('ZADD', KEYS[2], nowMs() + tonumber(ARGV[2]), ARGV[1]) end
  return 0
end
redis.call('ZADD', KEYS[2], nowMs() + tonumber(ARGV[2]), ARGV[1])
return 1
