-- Prelude of rate-learn.lua, after rate-limits.lua: what a statement and a refusal make of a learnt limit. The same rule, held against
-- this one by a test, stands in learnt-rule.ts. Nothing is read or written; both answer the field's new text, or nil for no change.
local CONFIRM_AFTER_MS = 3600000
local CUT = 0.7
local FLOOR = 0.01

local function ceilingOf(learnt)
  local space = learnt and string.find(learnt, ' ', 1, true)
  return space and tonumber(string.sub(learnt, space + 1)) or nil
end

-- Less holds at once, more is recovered to.
local function statedLimit(learnt, learntAtMs, stated, configured, nowMs)
  local effective = limitOf(learnt, learntAtMs, configured, nowMs)
  local ageMs = nowMs - (tonumber(learntAtMs or '0') or 0)
  if learnt and ceilingOf(learnt) == stated and ageMs < CONFIRM_AFTER_MS then return nil end
  local from = (not learnt or effective <= 0) and stated or effective
  return string.format('%.3f %.3f', math.min(stated, from), stated)
end

local function cutLimit(learnt, learntAtMs, configured, nowMs)
  local effective = limitOf(learnt, learntAtMs, configured, nowMs)
  if effective <= 0 then return nil end
  local ceiling = ceilingOf(learnt)
  local base = configured > 0 and configured or ceiling or effective
  local value = math.max(effective * CUT, math.min(effective, math.max(1, base * FLOOR)))
  return ceiling and string.format('%.3f %.3f', value, ceiling) or string.format('%.3f', value)
end
