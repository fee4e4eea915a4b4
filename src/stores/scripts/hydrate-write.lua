-- Writes the sums that were read from Postgres, and the records of attempts that are under way there. Only if the token of
-- hydrate-begin is still there: any change of the scope in between removed it.
-- KEYS: holds, leases, scope
-- ARGV: token, generation, runId, kind, id, settled nano, settled tokens, leaseMs,
--       JSON: [{key, call, nano, tokens, owner, generation, heldAt, scopes = [[kind, id], ...]}] of started attempts, tokens and amounts as text
-- Returns 'OK' or 'LOST'
local token, kind, id = ARGV[1], ARGV[4], ARGV[5]
local under = redis.call('HGET', KEYS[3], 'hydrating')
if not under or string.sub(under, 1, #token + 1) ~= token .. '|' then return 'LOST' end

local now = nowMs()
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[3], 'hydrated', ARGV[2] .. ':' .. ARGV[3], 'token', token,
  'usd:settled', ARGV[6], 'tokens:settled', ARGV[7], 'usd:held', '0', 'tokens:held', '0')
for _, attempt in ipairs(cjson.decode(ARGV[9])) do
  local text = redis.call('HGET', KEYS[1], attempt.key)
  local record
  if text then
    record = cjson.decode(text)
  else
    -- Nobody knows whether a lost record was marked sent: it says "maybe", and gets a lease so that its owner can show itself.
    record = {
      call = attempt.call, nano = attempt.nano, tokens = attempt.tokens, owner = attempt.owner,
      generation = attempt.generation, sent = 'unknown', heldAt = attempt.heldAt, seen = '0', scopes = {},
    }
    for index, scope in ipairs(attempt.scopes) do record.scopes[index] = { scope[1], scope[2], '' } end
    redis.call('ZADD', KEYS[2], now + tonumber(ARGV[8]), attempt.key)
  end
  for _, entry in ipairs(record.scopes) do
    if entry[1] == kind and entry[2] == id then entry[3] = token end
  end
  redis.call('HSET', KEYS[1], attempt.key, cjson.encode(record))
  redis.call('HINCRBY', KEYS[3], 'usd:held', record.nano)
  redis.call('HINCRBY', KEYS[3], 'tokens:held', record.tokens)
end
redis.call('PEXPIRE', KEYS[3], SCOPE_TTL_MS)
return 'OK'
