-- Asks to rebuild intervals of one scope. The fence is a random token: a counter would start again at 0 after a flush and let an old
-- reader pass.
-- KEYS: scope   ARGV: token, '<generation>:<run id>', ttlMs, intervals...
-- Returns 'READY' (somebody rebuilt them), 'BUSY' (somebody is at it) or 'OK'
local state, now = redis.call('GET', KEYS[1]), nowMs()
local hydrated, version, blocks = '', NONE, ''
if state then
  local under, hydrating, untilMs, oldVersion, count, from = read(HEAD, state)
  if under == ARGV[2] then
    hydrated, version, blocks = under, oldVersion, sub(state, from, from + BLOCK_SIZE * count - 1)
    local isReady = true
    for at = 4, #ARGV do isReady = isReady and blockOf(state, ARGV[at]) ~= nil end
    if isReady then return 'READY' end
  end
  if hydrating ~= NONE and untilMs > now then return 'BUSY' end
end
tellNobody()
redis.call('SET', KEYS[1], pack(HEAD, hydrated, ARGV[1], now + ARGV[3], version, #blocks / BLOCK_SIZE) .. blocks, 'PX', SCOPE_TTL_MS)
return 'OK'
