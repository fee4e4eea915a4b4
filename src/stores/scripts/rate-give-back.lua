-- Ends a permit: its place among the parallel ones is free, and its tokens are corrected to what was really used. Idempotent.
-- Follows rate-limits.lua and rate-permits.lua, which describes KEYS.
-- ARGV: attemptKey, input and output tokens really used, 1 when the request was never sent (its place in rpm comes back too),
--   the model that the output teaches how much it writes or '', then as text outer rpm, tpm, inputTpm, outputTpm, inner rpm, tpm, inputTpm, outputTpm
--   (0: none)
-- Returns the model's running 95th percentile of output tokens, 0 while it is not known, -1 when there was no such permit
local call = redis.call
local FIRST_OUTPUTS = 20
call('ZREM', KEYS[3], ARGV[1])
call('ZREM', KEYS[4], ARGV[1])
local field = 'p:' .. ARGV[1]
local nowUs, nowMs = clock()
local permit = call('HGET', KEYS[1], field)
if permit then call('HDEL', KEYS[1], field) end
local input, output = readPermit(permit, nowMs)
if not input then return -1 end
local moreInput, moreOutput = ARGV[2] - input, ARGV[3] - output
local more = { ARGV[4] == '1' and -1 or 0, moreInput + moreOutput, moreInput, moreOutput }
local limits = specOf(ARGV[6])

-- What was used beyond the booking is taken now, also from a bucket that has filled up since; what was not used comes back.
for number = 1, 8 do
  local dimension, change = DIMENSIONS[(number - 1) % 4 + 1], more[(number - 1) % 4 + 1]
  if change ~= 0 and (limits[number] > 0 or (number - 1) % 4 < 2) then
    local key = number < 5 and KEYS[1] or KEYS[2]
    local state = call('HMGET', key, dimension, 'limit:' .. dimension, 'limitAt:' .. dimension)
    local limit = limitOf(state[2], state[3], limits[number], nowMs)
    if limit > 0 and state[1] then
      local from, us = state[1] + 0, math.floor(math.abs(change) * MINUTE_US / limit + 0.5)
      if change > 0 and from < nowUs then from = nowUs end
      call('HSET', key, dimension, math.floor(from + (change > 0 and us or -us)))
    end
  end
end

-- The largest of the first outputs, then a step up for each that is longer and a nineteenth of it down for each that is not: where both
-- balance, one in twenty is longer.
if ARGV[5] == '' then return 0 end
local before = call('HGET', KEYS[1], 'w:' .. ARGV[5]) or '0 1'
local seen, usual = string.match(before, '^(%d+) (%S+)$')
local outputs, p95, used = seen + 1, usual + 0, ARGV[3] + 0
if outputs <= FIRST_OUTPUTS then
  p95 = math.max(p95, used)
else
  p95 = math.max(1, used > p95 and p95 * 1.095 or p95 * 0.995)
end
call('HSET', KEYS[1], 'w:' .. ARGV[5], string.format('%d %.3f', math.min(outputs, FIRST_OUTPUTS), p95))
return outputs < FIRST_OUTPUTS and 0 or math.ceil(p95)
