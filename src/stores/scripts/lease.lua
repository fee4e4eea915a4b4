-- How long an attempt is still believed to be alive. KEYS: holds, leases   ARGV: attemptKey, callKey, leaseMs
-- Returns milliseconds, negative when that is over; false where nobody knows the attempt
local record = recordOf(redis.call('HGET', KEYS[1], ARGV[2]), ARGV[1])
local untilMs = leaseOf(KEYS[2], record, ARGV[1], ARGV[3])
return untilMs and untilMs - nowMs()
