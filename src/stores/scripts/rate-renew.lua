-- Keeps a permit of a running request. One whose lease is over is not revived: its place may have been given to somebody else.
-- Follows rate-permits.lua, which describes KEYS.
-- ARGV: attemptKey, leaseMs
local call = redis.call
local _, nowMs = clock()
local input, output = readPermit(call('HGET', KEYS[1], 'p:' .. ARGV[1]), nowMs)
if input then call('HSET', KEYS[1], 'p:' .. ARGV[1], permitOf(input, output, nowMs + ARGV[2])) end
for number = 3, 4 do
  local untilMs = call('ZSCORE', KEYS[number], ARGV[1])
  if untilMs and untilMs + 0 > nowMs then call('ZADD', KEYS[number], nowMs + ARGV[2], ARGV[1]) end
end
return 1
