-- Ends a hold: the estimate leaves `held`, what was charged enters `settled`. Idempotent: the record is the token. The marker is set also
-- when the record is missing, so that a repeated hold of the same attempt finds it.
-- KEYS: holds, leases, done, scopes...   ARGV: attemptKey, callKey, marker, cost in nano-USD, tokens, ttlMs
-- Returns 1 when this call released it, 0 when it was released before, 2 when there was no hold
local call, attemptKey, callKey, cost, tokens = redis.call, ARGV[1], ARGV[2], ARGV[4] + 0, ARGV[5] + 0
local text = call('HGET', KEYS[1], callKey)
local record = recordOf(text, attemptKey)
-- A record beside a marker was rebuilt after the end, from a Postgres that did not know it yet: it still counts where its tokens say.
if not record and call('EXISTS', KEYS[3]) == 1 then return 0 end
call('SET', KEYS[3], ARGV[3], 'PX', ARGV[6])
call('ZREM', KEYS[2], attemptKey)
if not record then
  local states = call('MGET', unpack(KEYS, 4))
  for index = 4, #KEYS do noteEnd(KEYS[index], states[index - 3], attemptKey, cost, tokens) end
  return 2
end
moveOut(KEYS, 4, text, record, cost, tokens)
removeRecord(KEYS[1], callKey, text, record)
return 1
