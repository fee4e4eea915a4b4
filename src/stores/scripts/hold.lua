-- Holds an estimate on every scope of a call, or on none. All checks come before the first write. Idempotent in the attempt key.
-- KEYS: holds, leases, call, done of this attempt, done of the previous attempt, scopes...
-- ARGV: attemptKey, generation, runId, leaseMs, nano, tokens, previous attempt or '', ttlMs, the record's JSON as far as the caller knows
--       it: '{...', number of scopes, per scope '["kind","id"', number of windows, per window the bounds of its current and next
--       interval: start, turn, end; then per limit: scope (1-based), unit, amount, 1 when hard, window (1-based, 0 for all time)
-- Returns {'OK', heldAtMs, settled, held and interval per limit...} · {'DONE', marker} · {'STALE_WINDOW', nowMs}
--         · {'MISS', scope index, interval, ...} · {'PREVIOUS', attemptKey} · {'REFUSED' | 'HELD', limit index, settled, held, interval}
-- It is the busiest script, and what takes its time is calls, values that come back from them, and tables: so it reads a scope once,
-- walks over ARGV instead of copying it, and writes JSON by hand: intervals and tokens have nothing that JSON escapes.
local attemptKey, runId, nano, tokens, ttlMs = ARGV[1], ARGV[3], ARGV[5], ARGV[6], ARGV[8]

-- The marker comes before the record: an attempt that is over is never revived by a repeated command.
local marker = redis.call('GET', KEYS[4])
if marker then return { 'DONE', marker } end

-- An older attempt of this call that was not sent yet gives way. Two attempts of one call can be here at once when a frozen worker
-- wakes up: after this its mark-sent fails.
local older, own = nil, nil
local newest = redis.call('GET', KEYS[3])
if newest then
  if newest ~= attemptKey then
    local text = redis.call('HGET', KEYS[1], newest)
    if text then
      local decoded = cjson.decode(text)
      -- A record of another server process may be older than its "sent".
      if decoded.sent == 'no' and decoded.run == runId then
        if newest ~= ARGV[7] then return { 'PREVIOUS', newest } end
        older = decoded
      end
    end
  end
  own = redis.call('HGET', KEYS[1], attemptKey)
end

-- Which interval each window is in, and when that turns.
local now = nowMs()
local nowText = string.format('%.0f', now)
local scopeCount = tonumber(ARGV[10])
local at = 11 + scopeCount
local intervals, stops = { [0] = 'all' }, { [0] = math.huge }
for window = 1, tonumber(ARGV[at]) do
  local start, turn, stop = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  at = at + 3
  if now >= tonumber(turn) then start, turn = turn, stop end
  if now < tonumber(start) or now >= tonumber(turn) then return { 'STALE_WINDOW', nowText } end
  intervals[window], stops[window] = start .. '-' .. turn, tonumber(turn)
end
local firstLimit = at + 1

-- One read for each scope: its state, then of every interval that a limit asks for what is settled and held, and its token. `first`
-- says where in the answer an interval begins.
local scopes, fields = {}, {}
for index = 1, scopeCount do
  local key = KEYS[5 + index]
  scopes[index] = { key = key, head = ARGV[10 + index], read = { 'HMGET', key, 'hydrated', 'version', 'intervals' }, asked = {}, first = {} }
end
for from = firstLimit, #ARGV, 5 do
  local scope, interval = scopes[tonumber(ARGV[from])], intervals[tonumber(ARGV[from + 4])]
  if not scope.first[interval] then
    local names = fields[interval]
    if not names then
      names = { interval .. ':usd:settled', interval .. ':usd:held', interval .. ':tokens:settled', interval .. ':tokens:held', interval .. ':token' }
      fields[interval] = names
    end
    local read = scope.read
    local size = #read
    read[size + 1], read[size + 2], read[size + 3], read[size + 4], read[size + 5] = unpack(names)
    scope.first[interval] = size - 1
    scope.asked[#scope.asked + 1] = interval
  end
end
local wanted = ARGV[2] .. ':' .. runId
local missing = { 'MISS' }
for index, scope in ipairs(scopes) do
  local found = redis.call(unpack(scope.read))
  scope.found, scope.version, scope.intervals = found, '', ''
  if found[1] == wanted then scope.version, scope.intervals = found[2], found[3] end
  for _, interval in ipairs(scope.asked) do
    if not string.find(scope.intervals, interval .. ';', 1, true) then
      missing[#missing + 1] = index
      missing[#missing + 1] = interval
    end
  end
end
if own then return { 'OK', cjson.decode(own).heldAt } end
if #missing > 1 then return missing end

-- What the older hold will give back counts as free.
if older then
  for _, scope in ipairs(scopes) do
    local name = cjson.decode(scope.head .. ']')
    scope.kind, scope.id = name[1], name[2]
  end
end
local function givenBack(scope, interval, unit, token)
  for _, entry in ipairs(older.scopes) do
    if entry[1] == scope.kind and entry[2] == scope.id then
      for place = 4, #entry, 2 do
        if entry[place] == interval and entry[place + 1] == token then return tonumber(unit == 'usd' and older.nano or older.tokens) end
      end
    end
  end
  return 0
end

local answer, size = { 'OK', nowText }, 2
local refused, refusedStop, waiting = nil, -1, nil
local neededNano, neededTokens = tonumber(nano), tonumber(tokens)
for from = firstLimit, #ARGV, 5 do
  local scope, unit, window = scopes[tonumber(ARGV[from])], ARGV[from + 1], tonumber(ARGV[from + 4])
  local interval, found = intervals[window], scope.found
  local first = scope.first[interval]
  local settled, held, needed = found[first], found[first + 1], neededNano
  if unit ~= 'usd' then settled, held, needed = found[first + 2], found[first + 3], neededTokens end
  if older then held = string.format('%.0f', tonumber(held) - givenBack(scope, interval, unit, found[first + 4])) end
  answer[size + 1], answer[size + 2], answer[size + 3] = settled, held, interval
  size = size + 3
  if ARGV[from + 3] == '1' then
    local amount, least = tonumber(ARGV[from + 2]), tonumber(settled) + needed
    -- A limit of 0 has no room even for a call that costs nothing. Of several that refuse, the one that turns last is told.
    if (least > amount or amount == 0) and stops[window] > refusedStop then
      refused, refusedStop = { 'REFUSED', (from - firstLimit) / 5 + 1, settled, held, interval }, stops[window]
    end
    if not waiting and least + tonumber(held) > amount then
      waiting = { 'HELD', (from - firstLimit) / 5 + 1, settled, held, interval }
    end
  end
end
if refused then return refused end
if waiting then return waiting end

if older then
  moveOut(older, scopes, '0', '0')
  redis.call('HDEL', KEYS[1], newest)
  redis.call('ZREM', KEYS[2], newest)
  redis.call('SET', KEYS[5], 'void', 'PX', ttlMs)
end
local record, length = { ARGV[9], ',"heldAt":"', nowText, '","scopes":[' }, 4
local function countIn(scope, interval, heldNano, heldTokens, token)
  redis.call('HINCRBY', scope.key, heldNano, nano)
  redis.call('HINCRBY', scope.key, heldTokens, tokens)
  record[length + 1], record[length + 2], record[length + 3], record[length + 4] = '","', interval, '","', token
  length = length + 4
end
for index, scope in ipairs(scopes) do
  record[length + 1], record[length + 2], record[length + 3] = scope.head, ',"', scope.version
  length = length + 3
  local known = 0
  for _, interval in ipairs(scope.asked) do
    local names = fields[interval]
    known = known + #interval + 1
    countIn(scope, interval, names[2], names[4], scope.found[scope.first[interval] + 4])
  end
  -- Intervals that are counted here although no limit of this call asks for them.
  if #scope.intervals > known then
    for interval in string.gmatch(scope.intervals, '([^;]+);') do
      if not scope.first[interval] and covers(interval, now) then
        countIn(scope, interval, interval .. ':usd:held', interval .. ':tokens:held', redis.call('HGET', scope.key, interval .. ':token'))
      end
    end
  end
  length = length + 1
  record[length] = index < scopeCount and '"],' or '"]'
end
record[length + 1] = ']}'
redis.call('HSET', KEYS[1], attemptKey, table.concat(record))
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[4]), attemptKey)
redis.call('SET', KEYS[3], attemptKey, 'PX', ttlMs)
return answer
