-- Holds an estimate on every scope of a call, or on none. All checks come before the first write. Idempotent in the attempt key.
-- KEYS: holds, leases, call, done of this attempt, scopes..., done of the previous attempt where there is one
-- ARGV: attemptKey, '<generation>:<run id>', leaseMs, nano, tokens, previous attempt or '', ttlMs, the record's JSON as far as the caller
--       knows it: '{...', number of scopes, per scope '["kind","id"', number of windows, per window the bounds of its current and next
--       interval: start, turn, end; then per limit: a code of four characters, and its amount. The code: '0' + number of its scope,
--       '0' + number of its window or '0' for all time, 'u' or 't' for USD or tokens, 'h' or 's' for hard or soft
-- Returns {'OK', heldAtMs, settled and held per limit with spaces between, interval per window...}; {'OK', heldAtMs} when it was held
--         before · {'DONE', marker} · {'STALE_WINDOW', nowMs} · {'MISS', scope index, interval, ...} · {'PREVIOUS', attemptKey}
--         · {'REFUSED' | 'HELD', limit index, settled, held, interval}
-- It is the busiest script, and what takes its time is calls, values that come back from them, tables, and texts, each of which Redis' Lua
-- hashes from end to end: so it reads a scope once, walks over ARGV instead of copying it, and writes JSON by hand, in few pieces (nothing
-- in intervals and tokens needs an escape). Arithmetic reads a number from a text once, tonumber twice.
local KEYS, ARGV, call = KEYS, ARGV, redis.call
local attemptKey, wanted, nano, tokens, ttlMs = ARGV[1], ARGV[2], ARGV[4], ARGV[5], ARGV[7]
local ZERO, USD, HARD = 48, 117, 104

-- The marker comes before the record: an attempt that is over is never revived by a repeated command.
local states = call('MGET', KEYS[4], KEYS[3])
local marker, newest = states[1], states[2]
if marker then return { 'DONE', marker } end

-- An older attempt of this call that was not sent yet gives way. Two attempts of one call can be here at once when a frozen worker
-- wakes up: after this its mark-sent fails.
local older, own = nil, nil
if newest then
  if newest ~= attemptKey then
    local text = call('HGET', KEYS[1], newest)
    if text then
      local decoded = cjson.decode(text)
      -- A record of another server process may be older than its "sent".
      if decoded.sent == 'no' and decoded.run == string.match(wanted, ':(.*)$') then
        if newest ~= ARGV[6] then return { 'PREVIOUS', newest } end
        older = decoded
      end
    end
  end
  own = call('HGET', KEYS[1], attemptKey)
end

-- Which interval each window is in, when that turns, and the first window that is in the same: zones may agree.
local now = nowMs()
local nowText = string.format('%.0f', now)
local scopeCount = ARGV[9] + 0
local windowCount = ARGV[10 + scopeCount] + 0
local firstLimit = 11 + scopeCount + 3 * windowCount
local intervals, marks, stops = { [0] = 'all' }, { [0] = 'all;' }, { [0] = math.huge }
local same, windowOf = { [0] = 0 }, { all = 0 }
for window = 1, windowCount do
  local at = 8 + scopeCount + 3 * window
  local start, turn = ARGV[at], ARGV[at + 1]
  local stop = turn + 0
  if now >= stop then
    start, turn = turn, ARGV[at + 2]
    stop = turn + 0
  end
  if now < start + 0 or now >= stop then return { 'STALE_WINDOW', nowText } end
  local interval = start .. '-' .. turn
  windowOf[interval] = windowOf[interval] or window
  intervals[window], marks[window], stops[window], same[window] = interval, interval .. ';', stop, windowOf[interval]
end

-- The counters that the limits ask for, by 100 * scope + window, and the state of each scope, which comes with the first of them.
local counters, versions, hydrated = {}, {}, {}
local missing = nil
for from = firstLimit, #ARGV, 2 do
  local scope, window = string.byte(ARGV[from], 1, 2)
  scope, window = scope - ZERO, same[window - ZERO]
  local place = 100 * scope + window
  if not counters[place] then
    local key, names = KEYS[4 + scope], namesOf(intervals[window])
    local found
    if versions[scope] then
      found = call('HMGET', key, names[1], names[2], names[3], names[4], names[5])
    else
      found = call('HMGET', key, names[1], names[2], names[3], names[4], names[5], 'hydrated', 'version', 'intervals')
      versions[scope], hydrated[scope] = '', ''
      if found[6] == wanted then versions[scope], hydrated[scope] = found[7], found[8] end
    end
    counters[place] = found
    if not string.find(hydrated[scope], marks[window], 1, true) then
      missing = missing or { 'MISS' }
      missing[#missing + 1] = scope
      missing[#missing + 1] = intervals[window]
    end
  end
end
if own then return { 'OK', cjson.decode(own).heldAt } end
if missing then return missing end
for scope = 1, scopeCount do
  if not versions[scope] then versions[scope], hydrated[scope] = validState(KEYS[4 + scope], wanted) end
end

-- What the older hold will give back counts as free.
local scopes = {}
if older then
  for scope = 1, scopeCount do
    local name = cjson.decode(ARGV[9 + scope] .. ']')
    scopes[scope] = { key = KEYS[4 + scope], kind = name[1], id = name[2] }
  end
end
local function givenBack(scope, interval, unit, token)
  for _, entry in ipairs(older.scopes) do
    if entry[1] == scope.kind and entry[2] == scope.id then
      for at = 4, #entry, 2 do
        if entry[at] == interval and entry[at + 1] == token then return tonumber(unit == USD and older.nano or older.tokens) end
      end
    end
  end
  return 0
end

local uses, count = {}, 0
local refused, refusedStop, waiting = nil, -1, nil
local neededNano, neededTokens = nano + 0, tokens + 0
for from = firstLimit, #ARGV, 2 do
  local scope, window, unit, hardness = string.byte(ARGV[from], 1, 4)
  scope, window = scope - ZERO, same[window - ZERO]
  local found = counters[100 * scope + window]
  local settled, held, needed = found[1], found[2], neededNano
  if unit ~= USD then settled, held, needed = found[3], found[4], neededTokens end
  if older then held = string.format('%.0f', held - givenBack(scopes[scope], intervals[window], unit, found[5])) end
  count = count + 1
  uses[count] = settled .. ' ' .. held
  if hardness == HARD then
    local amount, least = ARGV[from + 1] + 0, settled + needed
    -- A limit of 0 has no room even for a call that costs nothing. Of several that refuse, the one that turns last is told.
    if (least > amount or amount == 0) and stops[window] > refusedStop then
      refused, refusedStop = { 'REFUSED', count, settled, held, intervals[window] }, stops[window]
    end
    if not waiting and least + held > amount then waiting = { 'HELD', count, settled, held, intervals[window] } end
  end
end
if refused then return refused end
if waiting then return waiting end

if older then
  moveOut(newest, older, scopes, '0', '0')
  call('HDEL', KEYS[1], newest)
  call('ZREM', KEYS[2], newest)
  call('SET', KEYS[5 + scopeCount], 'void', 'PX', ttlMs)
end
local record = { ARGV[8], ',"heldAt":"', nowText, '","scopes":[' }
for scope = 1, scopeCount do
  local key, entry, known = KEYS[4 + scope], ARGV[9 + scope] .. ',"' .. versions[scope], 0
  for window = 0, windowCount do
    local found = counters[100 * scope + window]
    if found then
      local interval, names = intervals[window], namesOf(intervals[window])
      -- What was read before the older hold moved out is no sum any more.
      local usd, others = sumOf(found[2], neededNano), sumOf(found[4], neededTokens)
      if usd and others and not older then
        call('HSET', key, names[2], usd, names[4], others)
      else
        call('HINCRBY', key, names[2], nano)
        call('HINCRBY', key, names[4], tokens)
      end
      entry, known = entry .. '","' .. interval .. '","' .. found[5], known + #interval + 1
    end
  end
  -- Intervals that are counted here although no limit of this call asks for them.
  if #hydrated[scope] > known then
    for interval in string.gmatch(hydrated[scope], '([^;]+);') do
      local window = windowOf[interval]
      if not (window and counters[100 * scope + window]) and covers(interval, now) then
        local names = namesOf(interval)
        call('HINCRBY', key, names[2], nano)
        call('HINCRBY', key, names[4], tokens)
        entry = entry .. '","' .. interval .. '","' .. call('HGET', key, names[5])
      end
    end
  end
  record[4 + scope] = entry .. (scope < scopeCount and '"],' or '"]]}')
end
call('HSET', KEYS[1], attemptKey, table.concat(record))
call('ZADD', KEYS[2], now + ARGV[3], attemptKey)
call('SET', KEYS[3], attemptKey, 'PX', ttlMs)
return { 'OK', nowText, table.concat(uses, ' '), unpack(intervals) }
