-- Who holds what. KEYS: holds   ARGV: attemptKey, callKey
-- Returns {owner, names of its scopes...}, or {} where Redis has no such hold
local text = redis.call('HGET', KEYS[1], ARGV[2])
local record = recordOf(text, ARGV[1])
if not record then return {} end
local _, owner, scopes = tailOf(text, record)
local answer = { owner }
for name in string.gmatch(scopes, '[^\n]+') do answer[#answer + 1] = name end
return answer
