-- Prelude of the rate scripts: what a learnt limit makes of a configured one at a moment. The same rule, held against this one by a test,
-- stands in learnt-rule.ts. No KEYS, no ARGV; nothing is written.
--
-- A bucket's hash has for each dimension (rpm, tpm, inputTpm, outputTpm) `limit:<dimension>` = '<value>' or '<value> <ceiling>' and
-- `limitAt:<dimension>` = the ms at which it was `value`. From there it recovers by a tenth of the base a minute, up to the ceiling that
-- the provider itself has stated (believed for a day, then recovered from in the same way), and never above what is configured.
local RECOVERY_PER_MS = 0.1 / 60000
local CEILING_FOR_MS = 86400000

-- learnt, learntAtMs: the two fields, or false when absent; configured: per minute, 0 when nothing is configured.
-- Returns the effective limit per minute; 0 when nothing binds.
local function limitOf(learnt, learntAtMs, configured, nowMs)
  if not learnt then return configured end
  local space = string.find(learnt, ' ', 1, true)
  local value = tonumber(space and string.sub(learnt, 1, space - 1) or learnt)
  local ceiling = space and tonumber(string.sub(learnt, space + 1))
  -- Where nothing is configured, what the provider states is all there is to recover to.
  local base = configured > 0 and configured or ceiling
  if not value or not base then return configured end
  local ageMs = math.max(0, nowMs - (tonumber(learntAtMs or '0') or 0))
  if configured <= 0 and ageMs > CEILING_FOR_MS then return 0 end
  local limit = math.min(base, value + base * RECOVERY_PER_MS * ageMs)
  if not ceiling then return limit end
  local stale = math.max(0, ageMs - CEILING_FOR_MS)
  return math.min(limit, ceiling + base * RECOVERY_PER_MS * stale)
end
