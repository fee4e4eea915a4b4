-- Ends a permit: its place among the parallel ones is free, and the tokens are corrected to what was really used. Idempotent.
-- KEYS: bucket, permits, leases
-- ARGV: attemptKey, tokens really used, rpm or 0, tpm or 0, 1 when the request was never sent (its place in rpm comes back too)
-- Returns 1, or 0 when there was no such permit
local booked = redis.call('HGET', KEYS[2], ARGV[1])
if not booked then return 0 end
local rpm, tpm = tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
local function shift(field, us)
  local tat = redis.call('HGET', KEYS[1], field)
  if tat then redis.call('HSET', KEYS[1], field, string.format('%.0f', tonumber(tat) + us)) end
end
if tpm > 0 then shift('tpm', (tonumber(ARGV[2]) - tonumber(booked)) * 60000000 / tpm) end
if rpm > 0 and ARGV[5] == '1' then shift('rpm', -60000000 / rpm) end
return 1
