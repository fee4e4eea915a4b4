-- Writes the sums that were read from Postgres, and the records of attempts that are under way there. Only if the token of
-- hydrate-begin is still there: any change of the scope in between removed it, but for the ends of attempts, which are noted. Other
-- intervals of the scope stay as they are.
-- KEYS: holds, leases, scope
-- ARGV: token, generation, runId, kind, id, leaseMs, number of intervals, then per interval: its name, settled nano, settled tokens; then
--       JSON: [{key, call, nano, tokens, owner, generation, heldAt, scopes = [[kind, id], ...]}] of started attempts, amounts as text
-- Returns 'OK' or 'LOST'
local token, wanted, kind, id = ARGV[1], ARGV[2] .. ':' .. ARGV[3], ARGV[4], ARGV[5]
local under = redis.call('HGET', KEYS[3], 'hydrating')
if not under or string.sub(under, 1, #token + 1) ~= token .. '|' then return 'LOST' end

-- What became of attempts that may have been read as under way.
local ended = {}
for key, nano, tokens in string.gmatch(redis.call('HGET', KEYS[3], 'ended') or '', '([^ ;]+) ([^ ;]+) ([^ ;]+);') do
  ended[key] = { nano = nano, tokens = tokens }
end

local now = nowMs()
local oldVersion, oldIntervals = validState(KEYS[3], wanted)
local intervals, rebuilt = {}, {}
for number = 1, tonumber(ARGV[7]) do rebuilt[ARGV[8 + 3 * (number - 1)]] = true end
if oldVersion == '' then
  redis.call('DEL', KEYS[3])
else
  for interval in string.gmatch(oldIntervals, '([^;]+);') do
    if not rebuilt[interval] then
      local stop = tonumber(string.match(interval, '-(%d+)$'))
      if stop and stop <= now then
        for _, field in ipairs({ 'token', 'usd:settled', 'usd:held', 'tokens:settled', 'tokens:held' }) do
          redis.call('HDEL', KEYS[3], interval .. ':' .. field)
        end
      else
        intervals[#intervals + 1] = interval .. ';'
      end
    end
  end
end
for number = 1, tonumber(ARGV[7]) do
  local at = 8 + 3 * (number - 1)
  local interval = ARGV[at]
  intervals[#intervals + 1] = interval .. ';'
  redis.call('HSET', KEYS[3], interval .. ':token', token, interval .. ':usd:settled', ARGV[at + 1],
    interval .. ':tokens:settled', ARGV[at + 2], interval .. ':usd:held', '0', interval .. ':tokens:held', '0')
end
redis.call('HDEL', KEYS[3], 'hydrating', 'ended')
redis.call('HSET', KEYS[3], 'hydrated', wanted, 'version', token, 'intervals', table.concat(intervals))

local function countIn(entry, record)
  for interval in pairs(rebuilt) do
    if covers(interval, tonumber(record.heldAt)) then
      redis.call('HINCRBY', KEYS[3], interval .. ':usd:held', record.nano)
      redis.call('HINCRBY', KEYS[3], interval .. ':tokens:held', record.tokens)
      local at = 4
      while entry[at] and entry[at] ~= interval do at = at + 2 end
      entry[at], entry[at + 1] = interval, token
    end
  end
  -- Only what was counted everywhere before is counted everywhere now.
  if oldVersion == '' or entry[3] == oldVersion then entry[3] = token end
end

local function settleIn(heldAt, charge)
  for interval in pairs(rebuilt) do
    if covers(interval, tonumber(heldAt)) then
      redis.call('HINCRBY', KEYS[3], interval .. ':usd:settled', charge.nano)
      redis.call('HINCRBY', KEYS[3], interval .. ':tokens:settled', charge.tokens)
    end
  end
end

local function countUnderWay(attempt)
  local text = redis.call('HGET', KEYS[1], attempt.key)
  local record
  if text then
    record = cjson.decode(text)
  else
    -- Nobody knows whether a lost record was marked sent: it says "maybe", and gets a lease so that its owner can show itself.
    record = {
      call = attempt.call, nano = attempt.nano, tokens = attempt.tokens, owner = attempt.owner,
      generation = attempt.generation, sent = 'unknown', heldAt = attempt.heldAt, seen = '0', scopes = {},
    }
    for index, scope in ipairs(attempt.scopes) do record.scopes[index] = { scope[1], scope[2], '' } end
    redis.call('ZADD', KEYS[2], now + tonumber(ARGV[6]), attempt.key)
  end
  for _, entry in ipairs(record.scopes) do
    if entry[1] == kind and entry[2] == id then countIn(entry, record) end
  end
  redis.call('HSET', KEYS[1], attempt.key, cjson.encode(record))
end

for _, attempt in ipairs(cjson.decode(ARGV[8 + 3 * tonumber(ARGV[7])])) do
  if ended[attempt.key] then settleIn(attempt.heldAt, ended[attempt.key]) else countUnderWay(attempt) end
end
redis.call('PEXPIRE', KEYS[3], SCOPE_TTL_MS)
return 'OK'
