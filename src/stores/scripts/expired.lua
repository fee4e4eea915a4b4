-- Attempts whose lease is over. One that was never marked sent has none: a part of the holds is looked at for these each time, from where the
-- last look ended, so that a tenant with very many of them keeps nobody waiting.
-- KEYS: holds, leases   ARGV: leaseMs, how many to answer, cursor of the look, how many holds to look at
-- Returns {next cursor, attempt keys, oldest first...}
local now = nowMs()
local page = redis.call('HSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[4])
tellNobody()
for field = 2, #page[2], 2 do
  local text, at = page[2][field], 1
  while at <= #text do
    local heldAt, _, _, _, sent, _, size, attemptKey = read(RECORD, text, at)
    if sent == 'n' and heldAt + ARGV[1] <= now then redis.call('ZADD', KEYS[2], 'NX', heldAt + ARGV[1], attemptKey) end
    at = at + size
  end
end
local expired = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[2])
table.insert(expired, 1, page[1])
return expired
