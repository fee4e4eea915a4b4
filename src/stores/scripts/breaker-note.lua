-- Counts calls of a closed breaker, and opens it. What comes while it is not closed is of calls that began before.
-- KEYS, ARGV[1..8]: see breaker-state.lua; ARGV[9]: calls, ARGV[10]: failures among them
-- Returns {'noted', state, leftMs, era}
local calls, failures = tonumber(ARGV[9]), tonumber(ARGV[10])
local MIN_FAILURE_SHARE = tonumber(ARGV[11])
if state ~= 'closed' then return answer('noted') end

local width = math.max(1, math.ceil(intervalMs / slices))
local slice = whole(nowMs - nowMs % width)
local inSlice = redis.call('HINCRBY', KEYS[2], slice .. ':calls', calls)
if failures > 0 then redis.call('HINCRBY', KEYS[2], slice .. ':failures', failures) end
-- Sums are needed when something failed; a slice that begins is the occasion to let go of old ones.
if failures == 0 and inSlice ~= calls then return answer('noted') end

local all, sums, old = redis.call('HGETALL', KEYS[2]), { calls = 0, failures = 0 }, {}
for index = 1, #all, 2 do
  local start, what = string.match(all[index], '^(%d+):(%a+)$')
  if tonumber(start) <= nowMs - intervalMs then old[#old + 1] = all[index]
  else sums[what] = sums[what] + tonumber(all[index + 1]) end
end
if #old > 0 then redis.call('HDEL', KEYS[2], unpack(old)) end
keep(KEYS[1])
keep(KEYS[2])
if failures > 0 and sums.failures >= failureThreshold and sums.failures / sums.calls >= MIN_FAILURE_SHARE then
  change('open')
end
return answer('noted')
