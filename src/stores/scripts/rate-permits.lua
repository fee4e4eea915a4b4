-- Shared by the functions of rate control, after rate-limits.lua: the clock, the lines of a bucket, what permits and bookings look like,
-- and how they end. While Redis reads a library there is neither `redis.call` nor `math`: they are found when a function runs.
-- Every function gets the same keys:
--   1 outer bucket, 2 inner bucket, 3 leases of permits in the outer one, 4 leases in the inner one, 5 bookings
--   bucket    hash: rpm, tpm, inputTpm, outputTpm = theoretical arrival times in microseconds; blocked (ms); limit:<dimension> and
--             limitAt:<dimension> (rate-limits.lua). The outer one also: p:<attempt key> = a permit, b:<booking> = a booking, swept (ms)
--             and sweeping (where the look for lost permits goes on), higher (ms, when a rank of 1 or 2 was last admitted), aged (us),
--             w:<model> = '<outputs seen> <95th percentile>'
--   permit    '<input> <output>' that were booked, and the ms until which it counts
--   leases    zset attemptKey -> ms, of a bucket that bounds parallel requests
--   bookings  zset booking -> ms until which it is valid
--   a booking is '<slot us> <until ms> <input> <output> <tightest line>', then for each line that it is in
--             ' <line>:<arrival time after it>:<its cost in us>'; lines are numbered 1-4 in the outer bucket, 5-8 in the inner one
local MINUTE_US = 60000000
local NOTHING = {}
local DIMENSIONS = { 'rpm', 'tpm', 'inputTpm', 'outputTpm' }

local function clock()
  local time = redis.call('TIME')
  local us = time[1] * 1000000 + time[2]
  return us, math.floor(us / 1000)
end

-- Settings travel as one text that few requests differ in: it is read once.
local specs, specCount = {}, 0
local function specOf(text)
  local spec = specs[text]
  if spec then return spec end
  spec = {}
  for value in string.gmatch(text, '%S+') do spec[#spec + 1] = tonumber(value) end
  if specCount >= 1000 then specs, specCount = {}, 0 end
  specs[text], specCount = spec, specCount + 1
  return spec
end

-- One line with one more request in it, by GCRA (ITU-T I.371, the "virtual scheduling" form). `usable` is the part of the bucket that the
-- request may use. A cost above that passes alone, from a full bucket, and is paid off: the next one waits for it. Requests that a block
-- holds up follow one another when it ends, as they would have without it.
-- Returns the arrival time after it (nil: nothing binds), its cost, how long it waits, and the size of the bucket; all in microseconds.
local function lineUp(tat, learnt, learntAtMs, configured, cost, burstUs, usable, nowUs, blockedMs, isRpm)
  local limit = configured
  if learnt then limit = limitOf(learnt, learntAtMs, configured, nowUs / 1000) end
  if limit <= 0 then return nil, 0, -1, 1e15 end
  local requestUs = MINUTE_US / limit
  local costUs, fullUs = math.floor(cost * requestUs + 0.5), burstUs
  if fullUs < requestUs then fullUs = requestUs end
  local sizeUs, from = fullUs * usable, nowUs
  if tat and tat + 0 > nowUs then from = tat + 0 end
  if blockedMs > 0 then from = math.max(from, nowUs + blockedMs * 1000 + (isRpm and sizeUs - requestUs or 0)) end
  local waitUs = from - nowUs - sizeUs + (costUs < sizeUs and costUs or sizeUs)
  return math.floor(from + costUs), costUs, waitUs, fullUs
end

-- A permit as it is written; input and output are texts.
local function permitOf(input, output, untilMs) return string.format('%s %s %.0f', input, output, untilMs) end

-- Input and output of a permit that counts; nothing of one that is absent or whose lease is over.
local function readPermit(permit, nowMs)
  if not permit then return end
  local input, output, untilMs = string.match(permit, '^(%d+) (%d+) (%d+)$')
  if untilMs + 0 > nowMs then return input, output end
end

-- The place of a permit among the parallel ones.
local function occupy(keys, attemptKey, untilMs, outerParallel, innerParallel)
  if outerParallel > 0 then redis.call('ZADD', keys[3], untilMs, attemptKey) end
  if innerParallel > 0 then redis.call('ZADD', keys[4], untilMs, attemptKey) end
end

-- Makes a permit, or keeps it for another lease.
local function grant(keys, attemptKey, input, output, untilMs, outerParallel, innerParallel)
  redis.call('HSET', keys[1], 'p:' .. attemptKey, permitOf(input, output, untilMs))
  occupy(keys, attemptKey, untilMs, outerParallel, innerParallel)
end

-- Whether as many requests run as may. Those whose lease is over do not count, also where no sweep has seen them.
local function isFull(leases, maxParallel, nowMs)
  return maxParallel > 0 and redis.call('ZCARD', leases) >= maxParallel
    and redis.call('ZCOUNT', leases, '(' .. nowMs, '+inf') >= maxParallel
end

-- Nobody knows when a running call ends: a short, fixed wait, which the caller jitters.
local function fullLine(keys, outerParallel, innerParallel, nowMs)
  if isFull(keys[3], outerParallel, nowMs) then return 11 end
  if isFull(keys[4], innerParallel, nowMs) then return 12 end
end

local function forget(keys, booking)
  redis.call('HDEL', keys[1], 'b:' .. booking)
  redis.call('ZREM', keys[5], booking)
end

-- Leases of processes that died and a part of their permits, and bookings that nobody came for in time. `own` is looked at by whoever asks.
-- Answers how many bookings were lost.
local function sweep(keys, nowMs, own)
  redis.call('ZREMRANGEBYSCORE', keys[3], '-inf', nowMs)
  redis.call('ZREMRANGEBYSCORE', keys[4], '-inf', nowMs)
  local from = redis.call('HGET', keys[1], 'sweeping') or '0'
  local page = redis.call('HSCAN', keys[1], from, 'MATCH', 'p:*', 'COUNT', 200)
  for field = 1, #page[2], 2 do
    if not readPermit(page[2][field + 1], nowMs) then redis.call('HDEL', keys[1], page[2][field]) end
  end
  redis.call('HSET', keys[1], 'swept', nowMs, 'sweeping', page[1])
  local lost = 0
  for _, late in ipairs(redis.call('ZRANGEBYSCORE', keys[5], '-inf', '(' .. nowMs, 'LIMIT', 0, 500)) do
    if late ~= own then
      forget(keys, late)
      lost = lost + 1
    end
  end
  return lost
end

-- A booking becomes a permit: once, in its time. Answers as rate-admit.lua does, or nil when it is too late for that.
local function redeem(keys, record, attemptKey, booking, leaseMs, outerParallel, innerParallel, blockedMs, blockedLine, nowUs)
  local nowMs = math.floor(nowUs / 1000)
  local slotUs, untilMs, input, output, line = string.match(record, '^(%d+) (%d+) (%d+) (%d+) (%d+)')
  if untilMs + 0 < nowMs then
    forget(keys, booking)
    return nil
  end
  local restMs = math.max(0, math.ceil((slotUs - nowUs) / 1000))
  if blockedMs > restMs then return { blockedMs, blockedLine, 1, 0 } end
  if restMs > 0 or leaseMs == '0' then return { restMs, tonumber(line), 1, 0 } end
  local full = fullLine(keys, outerParallel, innerParallel, nowMs)
  if full then return { 500, full, 1, 0 } end
  forget(keys, booking)
  grant(keys, attemptKey, input, output, nowMs + leaseMs, outerParallel, innerParallel)
  return 0
end
