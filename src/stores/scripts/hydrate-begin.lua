-- Asks to rebuild intervals of one scope. The fence is a random token: a counter would start again at 0 after a flush and let an old
-- reader pass.
-- KEYS: scope   ARGV: token, '<generation>:<run id>', ttlMs, intervals...
-- Returns 'READY' (somebody rebuilt them), 'BUSY' (somebody is at it) or 'OK'
local state, now = redis.call('GET', KEYS[1]), nowMs()
local head, blocks = { '', NONE }, ''
if state then
  local hydrated, version, hydrating, untilMs, count, from = read(HEAD, state)
  if hydrated == ARGV[2] then
    head, blocks = { hydrated, version }, string.sub(state, from, from + BLOCK_SIZE * count - 1)
    local isReady = true
    for at = 4, #ARGV do isReady = isReady and blockOf(state, ARGV[at]) ~= nil end
    if isReady then return 'READY' end
  end
  if hydrating ~= NONE and untilMs > now then return 'BUSY' end
end
redis.call('SET', KEYS[1], pack(HEAD, head[1], head[2], ARGV[1], now + ARGV[3], #blocks / BLOCK_SIZE) .. blocks, 'PX', SCOPE_TTL_MS)
return 'OK'
