-- Blocks a provider's bucket until a hint is over; a shorter hint never shortens a longer one.
-- KEYS: bucket   ARGV: ms from now
local time = redis.call('TIME')
local untilMs = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(ARGV[1])
local before = tonumber(redis.call('HGET', KEYS[1], 'blocked') or '0')
if untilMs > before then redis.call('HSET', KEYS[1], 'blocked', string.format('%.0f', untilMs)) end
return 1
