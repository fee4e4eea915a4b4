-- Removes consumers of a log feed that have nothing to store any more: the one that leaves, and those that were not seen for long, whose
-- processes died. One that has entries stays: they would never be handed out again.
-- KEYS: log feed   ARGV: consumer group, the consumer that leaves ('' for none), how long another one was not seen, in milliseconds
-- Returns how many were removed
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return 0 end
local removed = 0
for _, consumer in ipairs(consumers) do
  local facts = {}
  for at = 1, #consumer, 2 do facts[consumer[at]] = consumer[at + 1] end
  if facts.pending == 0 and (facts.name == ARGV[2] or facts.idle > ARGV[3] + 0) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], facts.name)
    removed = removed + 1
  end
end
return removed
