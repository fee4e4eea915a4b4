-- Tries of a breaker that is not closed, over the fleet: grants one, keeps it, ends it.
-- KEYS, ARGV[1..8]: see breaker-state.lua; ARGV[9]: token, ARGV[10]: ask, keep, succeeded, failed or unknown, ARGV[11]: leaseMs
-- Returns {verdict, state, leftMs, era}; ask: 'closed' (no try is needed), 'wait' or 'probe'; else 'kept', 'ended' or 'gone'
local token, what, leaseMs = ARGV[9], ARGV[10], tonumber(ARGV[11])

if what == 'ask' then
  if state == 'closed' then return answer('closed') end
  if state == 'open' then
    if leftMs() > 0 then return answer('wait') end
    change('half_open')
  end
  -- A prober that died makes room when its lease is over.
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', nowMs)
  if redis.call('ZCARD', KEYS[3]) >= maxRequests then return answer('wait') end
  redis.call('ZADD', KEYS[3], nowMs + leaseMs, token)
  keep(KEYS[1])
  keep(KEYS[3])
  return answer('probe')
end

-- Given to somebody else meanwhile, or the breaker has changed since.
local lease = redis.call('ZSCORE', KEYS[3], token)
if not lease or tonumber(lease) <= nowMs then return answer('gone') end
if what == 'keep' then
  redis.call('ZADD', KEYS[3], nowMs + leaseMs, token)
  return answer('kept')
end
redis.call('ZREM', KEYS[3], token)
if what == 'failed' then change('open')
elseif what == 'succeeded' then
  successes = redis.call('HINCRBY', KEYS[1], 'successes', 1)
  if successes >= successThreshold then change('closed') end
end
return answer('ended')
