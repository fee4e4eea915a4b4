-- Turns a booking into a permit when its time has come. Follows rate-permits.lua, which describes KEYS. Idempotent in the attempt key.
-- ARGV: attemptKey, booking, leaseMs, outer maxParallel, inner maxParallel (0: none)
-- Returns 0 when admitted, {ms, line, 1, 0} when it is early, {-1, 0, 0, bookings lost} when there is nothing to redeem
local call = redis.call
local attemptKey, booking = ARGV[1], ARGV[2]
local innerParallel = tonumber(ARGV[5])
local nowUs, nowMs = clock()
local state = call('HMGET', KEYS[1], 'p:' .. attemptKey, 'b:' .. booking, 'blocked')
if state[1] then return grant(KEYS, attemptKey, nowMs + ARGV[3], innerParallel) end
if not state[2] then return { -1, 0, 0, 0 } end
local blockedMs, line = (tonumber(state[3]) or 0) - nowMs, 9
local innerMs = (tonumber(call('HGET', KEYS[2], 'blocked')) or 0) - nowMs
if innerMs > blockedMs then blockedMs, line = innerMs, 10 end
return redeem(KEYS, state[2], attemptKey, booking, ARGV[3], tonumber(ARGV[4]), innerParallel, blockedMs, line, nowUs)
  or { -1, 0, 0, 1 }
