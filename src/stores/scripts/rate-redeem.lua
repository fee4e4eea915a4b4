-- Turns a booking into a permit when its time has come. Follows rate-permits.lua, which describes KEYS. Idempotent in the attempt key.
-- ARGV: attemptKey, booking, leaseMs, outer maxParallel, inner maxParallel (0: none)
-- Returns 0 when admitted, {ms, line, 1, 0} when it is early, {-1, 0, 0, bookings lost} when there is nothing to redeem
local call = redis.call
local attemptKey, booking = ARGV[1], ARGV[2]
local outerParallel, innerParallel = tonumber(ARGV[4]), tonumber(ARGV[5])
local nowUs, nowMs = clock()
local state = call('HMGET', KEYS[1], 'b:' .. booking, 'blocked', 'p:' .. attemptKey)
local input, output = readPermit(state[3], nowMs)
if input then
  grant(KEYS, attemptKey, input, output, nowMs + ARGV[3], outerParallel, innerParallel)
  return 0
end
if not state[1] then return { -1, 0, 0, 0 } end
local blockedMs, line = (state[2] or 0) - nowMs, 9
local innerMs = (call('HGET', KEYS[2], 'blocked') or 0) - nowMs
if innerMs > blockedMs then blockedMs, line = innerMs, 10 end
return redeem(KEYS, state[1], attemptKey, booking, ARGV[3], outerParallel, innerParallel, blockedMs, line, nowUs) or { -1, 0, 0, 1 }
