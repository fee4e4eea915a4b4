-- A rebuild that failed: who comes next need not wait for its fence. KEYS: scope   ARGV: token
local state = redis.call('GET', KEYS[1])
if not state then return 0 end
local _, hydrating = read(HEAD, state)
if hydrating ~= ARGV[1] then return 0 end
tellNobody()
disturb(KEYS[1], state)
return 1
