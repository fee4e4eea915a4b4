-- Ends a hold: the estimate leaves `held`, what was charged enters `settled`. Idempotent: the record is the token. The marker is set also
-- when the record is missing, so that a repeated hold of the same attempt finds it.
-- KEYS: holds, leases, done, scopes...
-- ARGV: attemptKey, marker, cost in nano-USD, tokens, ttlMs, number of scopes, kind and id per scope
-- Returns 1 when this call released it, 0 when it was released before, 2 when there was no hold
local attemptKey, marker, cost, tokens, ttlMs = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local scopes = readScopes(4, 7, tonumber(ARGV[6]))
local text = redis.call('HGET', KEYS[1], attemptKey)
-- A record beside a marker was rebuilt after the end, from a Postgres that did not know it yet: it still counts where its tokens say.
if not text and redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
redis.call('SET', KEYS[3], marker, 'PX', ttlMs)
redis.call('ZREM', KEYS[2], attemptKey)
if not text then
  for _, scope in ipairs(scopes) do noteEnd(scope.key, attemptKey, cost, tokens) end
  return 2
end
moveOut(attemptKey, cjson.decode(text), scopes, cost, tokens)
redis.call('HDEL', KEYS[1], attemptKey)
return 1
