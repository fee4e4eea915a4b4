-- Brings an adjustment row of the ledger to the counters. The caller read the scopes' versions before it committed the row: a scope
-- that still has its version and is not being rebuilt has not seen the row yet; any other is forgotten and rebuilt from Postgres.
-- KEYS: done of the adjustment, scopes...
-- ARGV: cost in nano-USD (may be negative), tokens, ttlMs, '<generation>:<run id>', the attempt's heldAt in ms, number of scopes, kind
--       and id per scope, then the version per scope, '' where it was not hydrated
-- Returns 1, or 0 when it was applied before
local cost, tokens, wanted, heldAt, count = ARGV[1], ARGV[2], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local scopes = readScopes(2, 7, count)
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[1], 'adjusted', 'PX', ARGV[3])
for index, scope in ipairs(scopes) do
  local expected = ARGV[6 + 2 * count + index]
  local version, intervals = validState(scope.key, wanted)
  if version ~= '' and version == expected and redis.call('HEXISTS', scope.key, 'hydrating') == 0 then
    for interval in string.gmatch(intervals, '([^;]+);') do
      if covers(interval, heldAt) then
        redis.call('HINCRBY', scope.key, interval .. ':usd:settled', cost)
        redis.call('HINCRBY', scope.key, interval .. ':tokens:settled', tokens)
      end
    end
  else
    redis.call('HDEL', scope.key, 'hydrated', 'hydrating', 'version', 'intervals')
  end
end
return 1
