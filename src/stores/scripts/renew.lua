-- Renews the lease of a hold and notes the output tokens so far, from which a lost attempt is estimated.
-- KEYS: holds, leases   ARGV: attemptKey, callKey, leaseMs, output tokens so far
-- Returns 1, or 0 when there is no such hold (released, taken, or lost with Redis)
local text = redis.call('HGET', KEYS[1], ARGV[2])
local record = recordOf(text, ARGV[1])
if not record then return 0 end
-- Only who has sent renews; a record that came back from a snapshot may have forgotten it.
record.seen, record.sent = ARGV[4] + 0, 'y'
tellNobody()
writeRecord(KEYS[1], ARGV[2], text, record)
redis.call('ZADD', KEYS[2], nowMs() + ARGV[3], ARGV[1])
return 1
