-- Holds an estimate on every scope of a call, or on none. All checks come before the first write. Idempotent in the attempt key.
-- KEYS: holds, leases, done of this attempt, scopes..., done of the previous attempt where there is one
-- ARGV: attemptKey, callKey, '<generation>:<run id>', leaseMs, nano, tokens, previous attempt or '', ttlMs, owner, windows and limits:
--       '<start>,<turn>,<end>;' for each window, the bounds of its current and its next interval; '|'; then for each limit
--       '<number of its scope>,<number of its window, 0 for all time>,<u or t for USD or tokens><h or s for hard or soft><amount>;'
-- Returns {'OK', heldAtMs, per window 1 when it is in its next interval, settled and held per limit...}; {'OK', heldAtMs} when it was held
--         before · {'DONE', marker} · {'STALE_WINDOW', nowMs} · {'MISS', scope index, interval, ...} · {'PREVIOUS', attemptKey}
--         · {'REFUSED' | 'HELD', limit index, settled, held, interval}
local call, attemptKey, callKey, wanted = redis.call, ARGV[1], ARGV[2], ARGV[3]
local scopeCount, older = #KEYS - (ARGV[7] == '' and 3 or 4), nil

-- The marker comes before the record: an attempt that is over is never revived by a repeated command. Behind it the scopes.
local states = call('MGET', unpack(KEYS, 3, 3 + scopeCount))
if states[1] then return { 'DONE', states[1] } end

-- An older attempt of this call that was not sent yet gives way. Two attempts of one call can be here at once when a frozen worker
-- wakes up: after this its mark-sent fails.
local text = call('HGET', KEYS[1], callKey)
if text then
  local own = recordOf(text, attemptKey)
  if own then return { 'OK', own.heldAt } end
  older = recordOf(text)
  -- A record of another server process may be older than its "sent".
  if older.sent ~= 'n' or not isOfRun(older.hydrated, string.match(wanted, ':(.*)$')) then older = nil end
  if older and older.key ~= ARGV[7] then return { 'PREVIOUS', older.key } end
end

local spec, now = specOf(ARGV[10]), nowMs()
if (now < spec.from or now >= spec.untilMs) and not turn(spec, now) then return { 'STALE_WINDOW', now } end
local windowCount = #spec.isNext
-- Room for what comes, so that the table does not grow again and again.
local answer = { 'OK', now, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil }
for window = 1, windowCount do answer[2 + window] = spec.isNext[window] end

-- Where the counters of each scope begin, and how many it has: none where it is not hydrated.
local froms, counts, versions = { 0, 0, 0, 0, 0 }, { 0, 0, 0, 0, 0 }, { NONE, NONE, NONE, NONE, NONE }
for scope = 1, scopeCount do
  local state = states[1 + scope]
  if state then
    local hydrated, version, from = read('<sc16', state)
    if hydrated == wanted then froms[scope], counts[scope], versions[scope] = from + 25, string.byte(state, from + 24), version end
  end
end

local nano, tokens = ARGV[5] + 0, ARGV[6] + 0
local groupScopes, groupStarts, groupStops, firsts = spec.groupScopes, spec.groupStarts, spec.groupStops, spec.firsts
local numbers, isUsd, isHard, amounts = spec.numbers, spec.isUsd, spec.isHard, spec.amounts
local missing, refused, refusedStop, waiting = nil, nil, -1, nil
for group = 1, #groupScopes do
  local scope, start, stop, block = groupScopes[group], groupStarts[group], groupStops[group], nil
  local state, settledUsd, settledTokens, heldUsd, heldTokens = states[1 + scope], nil, nil, nil, nil
  for at = froms[scope], froms[scope] + BLOCK_SIZE * (counts[scope] - 1), BLOCK_SIZE do
    local from, to, usd, others, usdHeld, othersHeld = read(COUNTER, state, at)
    if from == start and to == stop then
      block, settledUsd, settledTokens, heldUsd, heldTokens = at, usd, others, usdHeld, othersHeld
      break
    end
  end
  if not block then
    missing = missing or { 'MISS' }
    missing[#missing + 1], missing[#missing + 2] = scope, nameOf(start, stop)
  else
    -- What the older hold will give back counts as free.
    if older then
      local usd, others = givenBack(older, text, KEYS[3 + scope], state, block)
      heldUsd, heldTokens = heldUsd - usd, heldTokens - others
    end
    for limit = firsts[group], firsts[group + 1] - 1 do
      local settled, held, needed = settledUsd, heldUsd, nano
      if not isUsd[limit] then settled, held, needed = settledTokens, heldTokens, tokens end
      if settled + held >= EXACT then settled, held = told(settled), told(held) end
      local number, amount = numbers[limit], amounts[limit]
      local place = 1 + windowCount + 2 * number
      answer[place], answer[place + 1] = settled, held
      if isHard[limit] then
        -- A limit of 0 has no room even for a call that costs nothing. Of several that refuse, the one that turns last is told.
        if (settled + needed > amount or amount == 0) and stop > refusedStop then
          refused, refusedStop = { 'REFUSED', number, settled, held, nameOf(start, stop) }, stop
        end
        if settled + held + needed > amount and not waiting then
          waiting = { 'HELD', number, settled, held, nameOf(start, stop) }
        end
      end
    end
  end
end
if missing or refused or waiting then return missing or refused or waiting end

if older then
  moveOut(KEYS, 4, text, older, 0, 0)
  text = replaced(text, older, '')
  call('ZREM', KEYS[2], ARGV[7])
  call('SET', KEYS[#KEYS], 'void', 'PX', ARGV[8])
  -- What was read before the older hold moved out is no sum any more.
  states = call('MGET', unpack(KEYS, 3, 3 + scopeCount))
end
tellNobody()
local record = { pack(RECORD, 'n', now, 0, nano, tokens, attemptKey, wanted, ARGV[9], scopeCount), nil, nil, nil, nil, nil }
for scope = 1, scopeCount do
  local key, state, identities, counted = KEYS[3 + scope], states[1 + scope], '', 0
  if not state then counts[scope], versions[scope] = 0, NONE end
  -- Every counter whose interval it is, whoever asked for it.
  for block = froms[scope], froms[scope] + BLOCK_SIZE * (counts[scope] - 1), BLOCK_SIZE do
    local start, stop, _, _, heldUsd, heldTokens = read(COUNTER, state, block)
    if now >= start and now < stop then
      call('SETRANGE', key, block + 47, pack('<dd', sumOf(heldUsd, nano), sumOf(heldTokens, tokens)))
      local identity = string.sub(state, block, block + IDENTITY_SIZE - 1)
      identities, counted = counted == 0 and identity or identities .. identity, counted + 1
    end
  end
  record[1 + scope] = pack(PLACE, key, versions[scope], counted) .. identities
end
tellAll()
local written = table.concat(record)
call('HSET', KEYS[1], callKey, text and text .. written or written)
call('ZADD', KEYS[2], now + ARGV[4], attemptKey)
return answer
