-- Ends a hold: the estimate leaves `held`, what was charged enters `settled`. Idempotent: the record is the token. The marker is set also
-- when the record is missing, so that a repeated hold of the same attempt finds it.
-- KEYS: holds, leases, done, scopes...   ARGV: attemptKey, callKey, marker, cost in nano-USD, tokens, ttlMs
-- Returns 1 when this call released it, 0 when it was released before, 2 when there was no hold
local call, attemptKey, callKey, cost, used = redis.call, ARGV[1], ARGV[2], ARGV[4] + 0, ARGV[5] + 0
local text, at, keySize = call('HGET', KEYS[1], callKey), 1, #attemptKey
-- As recordOf finds it, without a table.
while text and at <= #text do
  local nano, tokens, _, count, size = read('<xxxxxxxxxxxxxxxxddc1BI', text, at)
  local keyAt = at + FIXED_SIZE
  if sub(text, keyAt, keyAt + keySize - 1) == attemptKey and byte(text, keyAt + keySize) == 0 then
    call('SET', KEYS[3], ARGV[3], 'PX', ARGV[6])
    tellNobody()
    call('ZREM', KEYS[2], attemptKey)
    moveOut(KEYS, 4, text, keyAt + keySize + 1, count, attemptKey, nano, tokens, cost, used)
    if size == #text then
      call('HDEL', KEYS[1], callKey)
    else
      call('HSET', KEYS[1], callKey, replaced(text, { at = at, size = size }, ''))
    end
    return 1
  end
  at = at + size
end
-- A record beside a marker was rebuilt after the end, from a Postgres that did not know it yet: it still counts where its tokens say. Here
-- is none.
if call('EXISTS', KEYS[3]) == 1 then return 0 end
call('SET', KEYS[3], ARGV[3], 'PX', ARGV[6])
tellNobody()
call('ZREM', KEYS[2], attemptKey)
local states = call('MGET', unpack(KEYS, 4))
for index = 4, #KEYS do noteEnd(KEYS[index], states[index - 3], attemptKey, cost, used) end
return 2
