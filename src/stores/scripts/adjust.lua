-- Brings an adjustment row of the ledger to the counters. The caller read the scopes' versions before it committed the row: a scope
-- that still has its version and is not being rebuilt has not seen the row yet; any other is forgotten and rebuilt from Postgres.
-- KEYS: done of the adjustment, scopes...
-- ARGV: cost in nano-USD (may be negative), tokens, ttlMs, '<generation>:<run id>', the attempt's heldAt in ms, then the version per scope,
--       '' where it was not hydrated
-- Returns 1, or 0 when it was applied before
local cost, tokens, wanted, heldAt = ARGV[1] + 0, ARGV[2] + 0, ARGV[4], ARGV[5] + 0
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[1], 'adjusted', 'PX', ARGV[3])
tellNobody()
local states = redis.call('MGET', unpack(KEYS, 2))
for index = 2, #KEYS do
  local key, state = KEYS[index], states[index - 1]
  local version = versionOf(state, wanted)
  local _, hydrating, blocks, from
  if version ~= NONE then _, hydrating, _, _, blocks, from = read(HEAD, state) end
  if hydrating == NONE and version == ARGV[4 + index] then
    for block = from, from + BLOCK_SIZE * (blocks - 1), BLOCK_SIZE do
      local start, stop, _, settledUsd, settledTokens = read(BLOCK, state, block)
      if heldAt >= start and heldAt < stop then
        redis.call('SETRANGE', key, block + IDENTITY_SIZE - 1, pack('<dd', sumOf(settledUsd, cost), sumOf(settledTokens, tokens)))
      end
    end
  elseif state then
    redis.call('DEL', key)
  end
end
return 1
