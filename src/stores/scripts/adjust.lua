-- Brings an adjustment row of the ledger to the counters. The caller read the scopes' tokens before it committed the row: a scope that
-- still has its token and is not being rebuilt has not seen the row yet; any other is forgotten and rebuilt from Postgres.
-- KEYS: done of the adjustment, scopes...
-- ARGV: cost in nano-USD (may be negative), tokens, ttlMs, '<generation>:<run id>', number of scopes, kind and id per scope, then the
--       token per scope, '' where it was not hydrated
-- Returns 1, or 0 when it was applied before
local cost, tokens, wanted, count = ARGV[1], ARGV[2], ARGV[4], tonumber(ARGV[5])
local scopes = readScopes(2, 6, count)
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[1], 'adjusted', 'PX', ARGV[3])
for index, scope in ipairs(scopes) do
  local expected = ARGV[5 + 2 * count + index]
  local token = validToken(scope.key, wanted)
  if token ~= '' and token == expected and redis.call('HEXISTS', scope.key, 'hydrating') == 0 then
    redis.call('HINCRBY', scope.key, 'usd:settled', cost)
    redis.call('HINCRBY', scope.key, 'tokens:settled', tokens)
  else
    redis.call('HDEL', scope.key, 'hydrated', 'hydrating', 'token')
  end
end
return 1
