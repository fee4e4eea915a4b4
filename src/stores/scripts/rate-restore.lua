-- Gives a bucket back what was learnt, where Redis has lost it or has an older state. Idempotent, safe beside rate-learn.lua: what is
-- newer stays.
-- KEYS: bucket   ARGV: for each row: dimension or 'blocked', limit, limitAt
for at = 1, #ARGV, 3 do
  local dimension, limit, limitAt = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local field = dimension == 'blocked' and 'blocked' or 'limitAt:' .. dimension
  local known = redis.call('HGET', KEYS[1], field)
  if not known or tonumber(known) < tonumber(limitAt) then
    redis.call('HSET', KEYS[1], field, limitAt)
    if dimension ~= 'blocked' then redis.call('HSET', KEYS[1], 'limit:' .. dimension, limit) end
  end
end
return 1
