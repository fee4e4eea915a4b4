-- Admits one request into two buckets of one slot, books a place for it, or says how long to wait. All checks come before the first write;
-- idempotent in attempt and booking. Follows rate-limits.lua and rate-permits.lua, which describes KEYS.
-- ARGV: 1 attemptKey  2 booking  3 leaseMs, 0: a probe, which may book and takes no permit  4 queued at ms, 0: never grows old
--   5 input tokens  6 output tokens  7 settings, numbers with blanks between them:
--     1 rank, 1 critical .. 4 low  2 rpm burst us  3 tpm burst us  4 horizon ms, the longest wait that is booked
--     5 ms of a wait that is not worth a booking  6 aged after ms  7 aged share  8 aged horizon ms  9 reserved share  10 reserved ms
--     11-15 outer rpm, tpm, inputTpm, outputTpm, maxParallel  16-20 the same of the inner bucket  (0: none)
-- Returns 0 when admitted, else {wait ms, line, 9 and 10 cooldown, 11 and 12 maxParallel, 1 when booked, bookings lost}
local call = redis.call
local attemptKey, booking, spec = ARGV[1], ARGV[2], specOf(ARGV[7])
local isProbe, rank = ARGV[3] == '0', spec[1]
local nowUs, nowMs = clock()
local outer = call('HMGET', KEYS[1], 'b:' .. booking, 'swept', 'higher', 'blocked',
  'rpm', 'limit:rpm', 'limitAt:rpm', 'tpm', 'limit:tpm', 'limitAt:tpm', 'p:' .. attemptKey)
-- The permit that an earlier call of this very attempt was given stands, whatever is in the way of others.
if outer[11] and not isProbe then
  local input, output = readPermit(outer[11], nowMs)
  if input then
    grant(KEYS, attemptKey, input, output, nowMs + ARGV[3], spec[15], spec[20])
    return 0
  end
end
-- A model without limits of its own mostly has nothing there, and looking for that is cheaper than reading it.
local inner = NOTHING
if spec[16] > 0 or spec[17] > 0 or call('EXISTS', KEYS[2]) == 1 then
  inner = call('HMGET', KEYS[2], 'blocked', 'rpm', 'limit:rpm', 'limitAt:rpm', 'tpm', 'limit:tpm', 'limitAt:tpm')
end
local lost = nowMs - (outer[2] or 0) >= 1000 and sweep(KEYS, nowMs, booking) or 0

local outerBlockedMs, innerBlockedMs = (outer[4] or 0) - nowMs, (inner[1] or 0) - nowMs
local waitUs, line = 0, 0
if outerBlockedMs > 0 then waitUs, line = outerBlockedMs * 1000, 9 end
if innerBlockedMs * 1000 > waitUs then waitUs, line = innerBlockedMs * 1000, 10 end
if outer[1] then
  local answer = redeem(KEYS, outer[1], attemptKey, booking, ARGV[3], spec[15], spec[20], waitUs / 1000, line, nowUs)
  if answer and lost > 0 then return answer == 0 and { 0, 0, 0, lost } or { answer[1], answer[2], 1, lost } end
  if answer then return answer end
  lost = lost + 1
end

-- The last part of the burst is for ranks 1 and 2: always before rank 4, before rank 3 while one of them was seen lately.
local usable = 1
if rank == 4 or (rank == 3 and outer[3] and nowMs - outer[3] < spec[10]) then usable = 1 - spec[9] end
local input, output = ARGV[5] + 0, ARGV[6] + 0
local tokens, rpmUs, tpmUs = input + output, spec[2], spec[3]
local rpm, rpmCost, us, shortestUs = lineUp(outer[5], outer[6], outer[7], spec[11], 1, rpmUs, usable, nowUs, outerBlockedMs, true)
local tightUs, size = 0, 0
if us > waitUs then waitUs, line, tightUs = us, 1, rpmCost end
local tpm, tpmCost, innerRpm, innerRpmCost, innerTpm, innerTpmCost
tpm, tpmCost, us, size = lineUp(outer[8], outer[9], outer[10], spec[12], tokens, tpmUs, usable, nowUs, outerBlockedMs)
if us > waitUs then waitUs, line, tightUs = us, 2, tpmCost end
if size < shortestUs then shortestUs = size end
innerRpm, innerRpmCost, us, size = lineUp(inner[2], inner[3], inner[4], spec[16], 1, rpmUs, usable, nowUs, innerBlockedMs, true)
if us > waitUs then waitUs, line, tightUs = us, 5, innerRpmCost end
if size < shortestUs then shortestUs = size end
innerTpm, innerTpmCost, us, size = lineUp(inner[5], inner[6], inner[7], spec[17], tokens, tpmUs, usable, nowUs, innerBlockedMs)
if us > waitUs then waitUs, line, tightUs = us, 6, innerTpmCost end
if size < shortestUs then shortestUs = size end

-- Input and output apart, where a bucket is limited so: few are.
local apart
if spec[13] + spec[14] + spec[18] + spec[19] > 0 then
  apart = {}
  for number = 3, 8 do
    local dimension, bucket = DIMENSIONS[(number - 1) % 4 + 1], number < 5 and 1 or 2
    local configured = spec[bucket == 1 and 10 + number or 11 + number]
    if number ~= 5 and number ~= 6 and configured > 0 then
      local state = call('HMGET', KEYS[bucket], dimension, 'limit:' .. dimension, 'limitAt:' .. dimension)
      local after, costUs
      after, costUs, us, size = lineUp(state[1], state[2], state[3], configured, number % 4 == 3 and input or output, tpmUs, usable, nowUs,
        bucket == 1 and outerBlockedMs or innerBlockedMs)
      if us > waitUs then waitUs, line, tightUs = us, number, costUs end
      if size < shortestUs then shortestUs = size end
      apart[#apart + 1] = { number, KEYS[bucket], dimension, after, costUs }
    end
  end
end

local isBooked, full = false, nil
if waitUs <= 0 and not isProbe then full = fullLine(KEYS, spec[15], spec[20], nowMs) end
if full then return { 500, full, 0, lost } end
if waitUs > 0 then
  local waitMs = math.ceil(waitUs / 1000)
  if waitMs <= spec[5] then return { waitMs, line, 0, lost } end
  isBooked = waitMs <= spec[4]
  -- So that no rank starves, those who have waited long share a part of the line, however far those above them have booked it.
  if not isBooked and spec[7] > 0 and ARGV[4] ~= '0' and nowMs - ARGV[4] >= spec[6] and waitMs <= spec[8] then
    local aged = call('HGET', KEYS[1], 'aged')
    isBooked = not aged or aged + 0 <= nowUs
    if isBooked then call('HSET', KEYS[1], 'aged', math.floor(nowUs + tightUs / spec[7])) end
  end
  if not isBooked then return { waitMs, line, 0, lost } end
  local untilMs = nowMs + math.ceil((waitUs + math.max(2000000, shortestUs < 1e15 and shortestUs or 0)) / 1000)
  local record = string.format('%.0f %.0f %s %s %d', nowUs + math.ceil(waitUs), untilMs, ARGV[5], ARGV[6], line)
  local function add(number, after, costUs)
    if after then record = string.format('%s %d:%.0f:%.0f', record, number, after, costUs) end
  end
  add(1, rpm, rpmCost)
  add(2, tpm, tpmCost)
  add(5, innerRpm, innerRpmCost)
  add(6, innerTpm, innerTpmCost)
  for _, one in ipairs(apart or {}) do add(one[1], one[4], one[5]) end
  call('HSET', KEYS[1], 'b:' .. booking, record, 'rpm', rpm or 0, 'tpm', tpm or 0)
  call('ZADD', KEYS[5], untilMs, booking)
elseif isProbe then
  return { 0, 0, 0, lost }
else
  local untilMs = nowMs + ARGV[3]
  call('HSET', KEYS[1], 'rpm', rpm or 0, 'tpm', tpm or 0, 'p:' .. attemptKey, permitOf(ARGV[5], ARGV[6], untilMs))
  occupy(KEYS, attemptKey, untilMs, spec[15], spec[20])
end
if innerRpm or innerTpm then call('HSET', KEYS[2], 'rpm', innerRpm or 0, 'tpm', innerTpm or 0) end
for _, one in ipairs(apart or {}) do call('HSET', one[2], one[3], one[4] or 0) end
if rank <= 2 then call('HSET', KEYS[1], 'higher', nowMs) end
if isBooked then return { math.ceil(waitUs / 1000), line, 1, lost } end
if lost > 0 then return { 0, 0, 0, lost } end
return 0
