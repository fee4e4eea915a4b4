-- Marks entries of a log feed as stored and removes them: what is in the feed is what is not in Postgres yet, and nothing else.
-- KEYS: log feed   ARGV: consumer group, ids
-- Returns how many were removed: 0 of those that another persister acknowledged before, or that Redis has lost
local group = table.remove(ARGV, 1)
redis.call('XACK', KEYS[1], group, unpack(ARGV))
return redis.call('XDEL', KEYS[1], unpack(ARGV))
