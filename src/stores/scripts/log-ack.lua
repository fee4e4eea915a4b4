-- Marks entries of a log feed as stored and removes them: what is in the feed is what is not in Postgres yet, and nothing else.
-- KEYS: log feed   ARGV: consumer group, ids
-- Returns how many were removed: 0 of those that another persister acknowledged before, or that Redis has lost
local removed = 0
-- Lua passes some thousands of arguments at most.
for first = 2, #ARGV, 1000 do
  local last = math.min(first + 999, #ARGV)
  redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, first, last))
  removed = removed + redis.call('XDEL', KEYS[1], unpack(ARGV, first, last))
end
return removed
