-- Renews the lease of a hold and notes the output tokens so far, from which a lost attempt is estimated.
-- KEYS: holds, leases   ARGV: attemptKey, leaseMs, output tokens so far
-- Returns 1, or 0 when there is no such hold (released, taken, or lost with Redis)
local text = redis.call('HGET', KEYS[1], ARGV[1])
if not text then return 0 end
local record = cjson.decode(text)
record.seen = ARGV[3]
-- Only who has sent renews; a record that came back from a snapshot may have forgotten it.
record.sent = 'yes'
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(record))
redis.call('ZADD', KEYS[2], nowMs() + tonumber(ARGV[2]), ARGV[1])
return 1
