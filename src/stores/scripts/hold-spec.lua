-- What a hold is asked, read once for all the calls that are asked the same (hold.lua says how it is written).
--   windows: of each its bounds as they were told, and whether it is in its next interval
--   groups, one for each counter that is asked for: its scope, its window, the bounds of its interval
--   limits, those of one group behind each other: number of its group, its own number, its unit, whether it is hard, its amount
--   from, untilMs: as long as no window turns
local specs, specCount = {}, 0
local MOST_SPECS = 1000

local function readSpec(text)
  local spec = {
    starts = {}, turns = {}, stops = {}, isNext = {}, groupScopes = {}, groupWindows = {}, groupStarts = {}, groupStops = {},
    firsts = {}, numbers = {}, isUsd = {}, isHard = {}, amounts = {}, from = 0, untilMs = 0,
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
    end
    table.insert(groups[groups[place]], { number, unit == 'u', hardness == 'h', amount + 0 })
  end
  for group, limits in ipairs(groups) do
    spec.firsts[group] = #spec.numbers + 1
    for _, limit in ipairs(limits) do
      local at = #spec.numbers + 1
      spec.numbers[at], spec.isUsd[at], spec.isHard[at], spec.amounts[at] = limit[1], limit[2], limit[3], limit[4]
    end
  end
  spec.firsts[#groups + 1] = number + 1
  return spec
end

-- Puts every window into the interval that it is in; false when one is in neither of its two.
local function turn(spec, now)
  spec.from, spec.untilMs = 0, INFINITE
  for window = 1, #spec.starts do
    local start, stop, isNext = spec.starts[window], spec.turns[window], 0
    if now >= stop then start, stop, isNext = stop, spec.stops[window], 1 end
    if now < start or now >= stop then
      spec.untilMs = 0
      return false
    end
    spec.isNext[window] = isNext
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

-- What an older hold of the same call counts in a counter: USD and tokens.
local function givenBack(older, text, key, state, block)
  local identity, at = string.sub(state, block, block + IDENTITY_SIZE - 1), older.places
  for _ = 1, older.count do
    local place, _, counted, identities = read(PLACE, text, at)
    at = identities + IDENTITY_SIZE * counted
    for held = identities, place == key and at - 1 or 0, IDENTITY_SIZE do
      if string.sub(text, held, held + IDENTITY_SIZE - 1) == identity then return older.nano, older.tokens end
    end
  end
  return 0, 0
end
