-- Writes the sums that were read from Postgres, and the records of attempts that are under way there. Only if the token of
-- hydrate-begin is still there: any change of the scope in between removed it, but for the ends of attempts, which are noted. Other
-- intervals of the scope stay as they are.
-- KEYS: holds, leases, scope
-- ARGV: token, '<generation>:<run id>', leaseMs, number of intervals, then per interval: its name, settled nano, settled tokens; then
--       JSON: [{key, call, nano, tokens, owner, heldAt, scopes = names as in a record, count = their number}] of started attempts,
--       amounts as text
-- Returns 'OK' or 'LOST'
local token, wanted, intervalCount, state = ARGV[1], ARGV[2], ARGV[4] + 0, redis.call('GET', KEYS[3])
if not state then return 'LOST' end
local ownName = string.match(KEYS[3], ':scope:(.*)$')
local hydrated, hydrating, _, oldVersion, oldCount, from = read(HEAD, state)
if hydrating ~= token then return 'LOST' end
if hydrated ~= wanted then oldVersion, oldCount = NONE, 0 end

-- What became of attempts that may have been read as under way.
local ended, afterBlocks = {}, from + BLOCK_SIZE * oldCount
for key, nano, tokens in string.gmatch(string.sub(state, afterBlocks), '([^ ;]+) ([^ ;]+) ([^ ;]+);') do
  ended[key] = { nano = nano + 0, tokens = tokens + 0 }
end

local now, rebuilt, isRebuilt, kept = nowMs(), {}, {}, {}
for number = 1, intervalCount do
  local at = 5 + 3 * (number - 1)
  local start, stop = boundsOf(ARGV[at])
  isRebuilt[ARGV[at]] = true
  rebuilt[number] = { start = start, stop = stop, settledUsd = sumOf(ARGV[at + 1], 0), settledTokens = sumOf(ARGV[at + 2], 0), heldUsd = 0, heldTokens = 0 }
end
for block = from, afterBlocks - 1, BLOCK_SIZE do
  local start, stop = read(BLOCK, state, block)
  if not isRebuilt[nameOf(start, stop)] and stop > now then kept[#kept + 1] = string.sub(state, block, block + BLOCK_SIZE - 1) end
end

-- The place of this scope in a record, with what it is counted in now.
local function placeOf(version, identities, heldAt, record)
  for _, counter in ipairs(rebuilt) do
    if heldAt >= counter.start and heldAt < counter.stop then
      counter.heldUsd, counter.heldTokens = sumOf(counter.heldUsd, record.nano), sumOf(counter.heldTokens, record.tokens)
      local bounds, others = pack('<dd', counter.start, counter.stop), {}
      for at = 1, #identities, IDENTITY_SIZE do
        if string.sub(identities, at, at + 15) ~= bounds then others[#others + 1] = string.sub(identities, at, at + IDENTITY_SIZE - 1) end
      end
      identities = table.concat(others) .. bounds .. token
    end
  end
  -- Only what was counted everywhere before is counted everywhere now.
  if oldVersion == NONE or version == oldVersion then version = token end
  return pack(PLACE, version, #identities / IDENTITY_SIZE) .. identities
end

local function settleIn(heldAt, charge)
  for _, counter in ipairs(rebuilt) do
    if heldAt >= counter.start and heldAt < counter.stop then
      counter.settledUsd, counter.settledTokens = sumOf(counter.settledUsd, charge.nano), sumOf(counter.settledTokens, charge.tokens)
    end
  end
end

local function countUnderWay(attempt)
  local text = redis.call('HGET', KEYS[1], attempt.call)
  local record = recordOf(text, attempt.key)
  if not record then
    -- Nobody knows whether a lost record was marked sent: it says "maybe", and gets a lease so that its owner can show itself.
    text = uncounted('u', attempt, attempt.count) .. (text or '')
    record = recordOf(text, attempt.key)
    redis.call('ZADD', KEYS[2], now + ARGV[3], attempt.key)
  end
  local tail, at, places, number = tailAt(text, record), record.places, {}, 0
  local _, _, scopes = read(TAIL, text, tail)
  for name in string.gmatch(scopes, '[^\n]+') do
    local version, counted, identities = read(PLACE, text, at)
    local next = identities + IDENTITY_SIZE * counted
    number = number + 1
    if name == ownName then
      places[number] = placeOf(version, sub(text, identities, next - 1), record.heldAt, record)
    else
      places[number] = sub(text, at, next - 1)
    end
    at = next
  end
  local rest = table.concat(places) .. sub(text, tail, record.at + record.size - 1)
  redis.call('HSET', KEYS[1], attempt.call, replaced(text, record, written(record, rest)))
end

tellNobody()
for _, attempt in ipairs(cjson.decode(ARGV[5 + 3 * intervalCount])) do
  if ended[attempt.key] then settleIn(attempt.heldAt + 0, ended[attempt.key]) else countUnderWay(attempt) end
end
for _, counter in ipairs(rebuilt) do
  kept[#kept + 1] = pack(BLOCK, counter.start, counter.stop, token, counter.settledUsd, counter.settledTokens, counter.heldUsd, counter.heldTokens)
end
redis.call('SET', KEYS[3], pack(HEAD, wanted, NONE, 0, token, #kept) .. table.concat(kept), 'PX', SCOPE_TTL_MS)
return 'OK'
