-- Gives a booking up. Its place comes back where nobody has lined up behind it; else it stays empty, and is lost.
-- Follows rate-permits.lua, which describes KEYS.
-- ARGV: booking
-- Returns 1 when every line had it back, 0 when one had not, -1 when there was no such booking
local call = redis.call
local record = call('HGET', KEYS[1], 'b:' .. ARGV[1])
if not record then return -1 end
forget(KEYS, ARGV[1])
local answer = 1
for number, after, costUs in string.gmatch(record, '(%d+):(%d+):(%d+)') do
  local key, dimension = number + 0 < 5 and KEYS[1] or KEYS[2], DIMENSIONS[(number - 1) % 4 + 1]
  local tat = call('HGET', key, dimension)
  if tat and tat + 0 == after + 0 then
    call('HSET', key, dimension, after - costUs)
  else
    answer = 0
  end
end
return answer
