-- Who holds what. KEYS: holds   ARGV: attemptKey, callKey
-- Returns {owner, keys of its scopes...}, or {} where Redis has no such hold
local text = redis.call('HGET', KEYS[1], ARGV[2])
local record = recordOf(text, ARGV[1])
if not record then return {} end
local answer, at = { record.owner }, record.places
for place = 1, record.count do
  local key, _, counted, identities = read(PLACE, text, at)
  answer[1 + place], at = key, identities + IDENTITY_SIZE * counted
end
return answer
