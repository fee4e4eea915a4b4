-- What one answer of a provider teaches its buckets: limits that it states, a bucket that it says is empty, and a refusal, which blocks
-- and cuts. Follows rate-limits.lua and rate-learning.lua. The server's clock decides; all workers read what stands here.
-- KEYS: the model's bucket, the provider's bucket (rate-permits.lua; of their own here: heard:<dimension> = '<remaining> <ms>', cutAt,
--       streak), the provider's bookings
-- ARGV: 'heard' or 'throttled'; ms since the request was sent; the hint in ms or 0; longest block in ms; burst of rpm and of the others in
--       us; configured rpm, tpm, inputTpm, outputTpm of the model, then of the provider (0: nothing);
--       then for each reading: 1 (the model's) or 2 (the provider's), dimension 1-4, stated limit or 0, remaining or -1, ms of nothing or 0
-- Returns flat, four for each change that is to outlive Redis: bucket, dimension, limit, limitAt ('blocked' with the ms until then)
local DIMENSIONS = { 'rpm', 'tpm', 'inputTpm', 'outputTpm' }
-- Requests that were admitted before a cut are refused for what was true before it: a burst of refusals is one.
local SAME_BURST_MS = 1000
local STREAK_MS = 60000
-- Places that were booked for a faster pace are given up when the pace falls by more than this.
local MATERIAL = 0.8
local FIRST_BLOCK_MS, LONGEST_UNHINTED_MS = 1000, 30000

local time = redis.call('TIME')
local nowMs = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local sentAtMs = nowMs - tonumber(ARGV[2])
local hintMs, longestMs = tonumber(ARGV[3]), tonumber(ARGV[4])
local changes = {}

local function configuredOf(bucket, dimension) return tonumber(ARGV[6 + (bucket - 1) * 4 + dimension]) end

local isTighter = false

local function note(bucket, dimension, limit, before)
  local name, at = DIMENSIONS[dimension], string.format('%.0f', nowMs)
  redis.call('HSET', KEYS[bucket], 'limit:' .. name, limit, 'limitAt:' .. name, at)
  changes[#changes + 1] = { bucket, name, limit, at }
  local after = limitOf(limit, at, configuredOf(bucket, dimension), nowMs)
  if after > 0 and (before <= 0 or after < before * MATERIAL) then isTighter = true end
end

local function learntOf(bucket, dimension)
  local name = DIMENSIONS[dimension]
  local state = redis.call('HMGET', KEYS[bucket], 'limit:' .. name, 'limitAt:' .. name)
  return state[1], state[2]
end

-- A shorter block never shortens a longer one. Answers by how much it grew.
local function block(bucket, ms)
  local untilMs = nowMs + math.min(ms, longestMs)
  local before = tonumber(redis.call('HGET', KEYS[bucket], 'blocked') or '0')
  if untilMs <= before then return 0 end
  redis.call('HSET', KEYS[bucket], 'blocked', string.format('%.0f', untilMs))
  return untilMs - math.max(before, nowMs)
end

local empty = { {}, {} }
for at = 15, #ARGV, 5 do
  local bucket, dimension = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local stated, remaining, emptyMs = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  if stated > 0 then
    local learnt, learntAt = learntOf(bucket, dimension)
    local configured = configuredOf(bucket, dimension)
    local limit = statedLimit(learnt, learntAt, stated, configured, nowMs)
    if limit then note(bucket, dimension, limit, limitOf(learnt, learntAt, configured, nowMs)) end
  end
  if remaining >= 0 then
    redis.call('HSET', KEYS[bucket], 'heard:' .. DIMENSIONS[dimension], string.format('%.0f %.0f', remaining, nowMs))
    -- Input and output apart bind only where they are configured: a cut of what does not bind would change nothing.
    if remaining == 0 and (dimension <= 2 or configuredOf(bucket, dimension) > 0) then empty[bucket][dimension] = true end
  end
  if emptyMs > 0 and ARGV[1] == 'heard' then block(bucket, emptyMs) end
end

-- The narrowest bucket whose limit is known is the one that was passed: a throttled model leaves the provider's others alone.
local function throttledBucket()
  for dimension = 1, 4 do
    if configuredOf(1, dimension) > 0 or learntOf(1, dimension) then return 1 end
  end
  return 2
end

if ARGV[1] == 'throttled' then
  local bucket = throttledBucket()
  local cutAt = tonumber(redis.call('HGET', KEYS[bucket], 'cutAt') or '0')
  local isNew = sentAtMs > cutAt + SAME_BURST_MS
  local streak = tonumber(redis.call('HGET', KEYS[bucket], 'streak') or '0')
  if isNew then
    streak = nowMs - cutAt < STREAK_MS and streak + 1 or 1
    -- What the provider says is used up was the cause; where it says nothing, anything may have been.
    local isNamed = next(empty[bucket]) ~= nil
    for dimension = 1, 4 do
      if not isNamed or empty[bucket][dimension] then
        local learnt, learntAt = learntOf(bucket, dimension)
        local configured = configuredOf(bucket, dimension)
        local limit = cutLimit(learnt, learntAt, configured, nowMs)
        if limit then note(bucket, dimension, limit, limitOf(learnt, learntAt, configured, nowMs)) end
      end
    end
    redis.call('HSET', KEYS[bucket], 'cutAt', string.format('%.0f', nowMs), 'streak', streak)
  end
  local ms = hintMs > 0 and hintMs or math.min(LONGEST_UNHINTED_MS, FIRST_BLOCK_MS * 2 ^ (math.max(1, streak) - 1))
  local grown = block(bucket, ms)
  if grown > 0 and (isNew or grown > 5000) then
    changes[#changes + 1] = { bucket, 'blocked', '1', redis.call('HGET', KEYS[bucket], 'blocked') }
  end
end

-- Whoever comes for such a place is admitted like any other. What they had lined up is taken off the buckets, which are then empty. (Lines
-- in buckets of other models stay for as long as they were booked ahead: no place there is taken twice.)
if isTighter then
  for _, booking in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do redis.call('HDEL', KEYS[2], 'b:' .. booking) end
  redis.call('DEL', KEYS[3])
  for bucket = 1, 2 do
    for dimension, name in ipairs(DIMENSIONS) do
      local learnt, learntAt = learntOf(bucket, dimension)
      local limit = limitOf(learnt, learntAt, configuredOf(bucket, dimension), nowMs)
      local sizeUs = tonumber(dimension == 1 and ARGV[5] or ARGV[6])
      if limit > 0 then sizeUs = math.max(sizeUs, 60000000 / limit) end
      local emptyUs = nowMs * 1000 + sizeUs
      local tat = tonumber(redis.call('HGET', KEYS[bucket], name) or '0')
      if tat > emptyUs then redis.call('HSET', KEYS[bucket], name, string.format('%.0f', emptyUs)) end
    end
  end
end

local answer = {}
for _, change in ipairs(changes) do
  for _, part in ipairs(change) do answer[#answer + 1] = tostring(part) end
end
return answer
