-- What a hold is asked, read once for all the calls that are asked the same (hold.lua says how it is written).
--   windows: of each its bounds as they were told, and whether it is in its next interval
--   groups, one for each counter that is asked for: its scope, its window, the bounds of its interval
--   limits, those of one group behind each other: number of its group, its own number, its unit, whether it is hard, its amount
--   mostUsd, mostTokens: of each group the least that one of its hard limits allows; nothing at all where that is 0
--   groupsOf: of each scope its groups
--   flags: for each window a byte, 1 when it is in its next interval; from, untilMs: as long as no window turns
local specs, specCount = {}, 0
local MOST_SPECS = 1000

local function readSpec(text)
  local spec = {
    starts = {}, turns = {}, stops = {}, groupScopes = {}, groupWindows = {}, groupStarts = {}, groupStops = {}, firsts = {}, numbers = {},
    isUsd = {}, isHard = {}, amounts = {}, mostUsd = {}, mostTokens = {}, groupsOf = { {}, {}, {}, {}, {} }, flags = '', from = 0, untilMs = 0,
  }
  local windows, limits = string.match(text, '^([^|]*)|(.*)$')
  for start, turn, stop in string.gmatch(windows, '(%d+),(%d+),(%d+);') do
    local window = #spec.starts + 1
    spec.starts[window], spec.turns[window], spec.stops[window] = start + 0, turn + 0, stop + 0
  end
  local groups, number = {}, 0
  for place, unit, hardness, amount in string.gmatch(limits, '(%d+,%d+),(%a)(%a)(%d+);') do
    number = number + 1
    if not groups[place] then
      local group = #groups + 1
      groups[place], groups[group] = group, {}
      local scope, window = string.match(place, '^(%d+),(%d+)$')
      spec.groupScopes[group], spec.groupWindows[group] = scope + 0, window + 0
      spec.groupStarts[group], spec.groupStops[group] = 0, INFINITE
      spec.mostUsd[group], spec.mostTokens[group] = INFINITE, INFINITE
      table.insert(spec.groupsOf[scope + 0], group)
    end
    table.insert(groups[groups[place]], { number, unit == 'u', hardness == 'h', amount + 0 })
  end
  for group, limits in ipairs(groups) do
    spec.firsts[group] = #spec.numbers + 1
    for _, limit in ipairs(limits) do
      local at = #spec.numbers + 1
      spec.numbers[at], spec.isUsd[at], spec.isHard[at], spec.amounts[at] = limit[1], limit[2], limit[3], limit[4]
      local most = limit[2] and spec.mostUsd or spec.mostTokens
      if limit[3] then most[group] = math.min(most[group], limit[4] == 0 and -1 or limit[4]) end
    end
  end
  spec.firsts[#groups + 1] = number + 1
  return spec
end

-- Puts every window into the interval that it is in; false when one is in neither of its two.
local function turn(spec, now)
  spec.from, spec.untilMs, spec.flags = 0, INFINITE, ''
  for window = 1, #spec.starts do
    local start, stop, isNext = spec.starts[window], spec.turns[window], 0
    if now >= stop then start, stop, isNext = stop, spec.stops[window], 1 end
    if now < start or now >= stop then
      spec.untilMs = 0
      return false
    end
    spec.flags = spec.flags .. string.char(isNext)
    spec.from, spec.untilMs = math.max(spec.from, start), math.min(spec.untilMs, stop)
    for group = 1, #spec.groupScopes do
      if spec.groupWindows[group] == window then spec.groupStarts[group], spec.groupStops[group] = start, stop end
    end
  end
  return true
end

local function specOf(text)
  local spec = specs[text]
  if spec then return spec end
  spec = readSpec(text)
  if specCount == MOST_SPECS then specs, specCount = {}, 0 end
  specs[text], specCount = spec, specCount + 1
  return spec
end

-- Which limit refuses, or makes wait; nil where none does. `found` are the amounts of each group, as a block has them.
-- A limit of 0 has no room even for a call that costs nothing. Of several that refuse, the one that turns last is told.
local function judge(spec, found, nano, tokens)
  local refused, refusedStop, waiting = nil, -1, nil
  for group = 1, #spec.groupScopes do
    local settledUsd, settledTokens, heldUsd, heldTokens = read('<dddd', found[group])
    local start, stop = spec.groupStarts[group], spec.groupStops[group]
    for limit = spec.firsts[group], spec.firsts[group + 1] - 1 do
      local settled, held, needed, amount = settledUsd, heldUsd, nano, spec.amounts[limit]
      if not spec.isUsd[limit] then settled, held, needed = settledTokens, heldTokens, tokens end
      if settled + held >= EXACT then settled, held = told(settled), told(held) end
      local isRefused = settled + needed > amount or amount == 0
      if spec.isHard[limit] and isRefused and stop > refusedStop then
        refused, refusedStop = { 'REFUSED', spec.numbers[limit], settled, held, nameOf(start, stop) }, stop
      end
      if spec.isHard[limit] and settled + held + needed > amount and not waiting then
        waiting = { 'HELD', spec.numbers[limit], settled, held, nameOf(start, stop) }
      end
    end
  end
  return refused or waiting
end

-- Whether a counter, by its identity, is one that a record is counted in.
local function isCountedIn(text, record, place, identity)
  local at = record.places
  for _ = 2, place do
    local _, counted, identities = read(PLACE, text, at)
    at = identities + IDENTITY_SIZE * counted
  end
  local _, counted, identities = read(PLACE, text, at)
  for held = identities, identities + IDENTITY_SIZE * (counted - 1), IDENTITY_SIZE do
    if sub(text, held, held + IDENTITY_SIZE - 1) == identity then return true end
  end
  return false
end
