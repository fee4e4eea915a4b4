-- Holds an estimate on every scope of a call, or on none. All checks come before the first write. Idempotent in the attempt key.
-- KEYS: holds, done of this attempt, scopes..., then leases and done of the previous attempt where there is one
-- ARGV: attemptKey, callKey, '<generation>:<run id>', nano, tokens, '<owner>\0<names of the scopes with line breaks between them>',
--       windows and limits:
--       '<start>,<turn>,<end>;' for each window, the bounds of its current and its next interval; '|'; then for each limit
--       '<number of its scope>,<number of its window, 0 for all time>,<u or t for USD or tokens><h or s for hard or soft><amount>;'
--       then the previous attempt and ttlMs where there is one
-- Returns bytes when it was held: heldAtMs as a double, per window a byte, 1 when it is in its next interval, then for each pair of scope and
--         window that has limits, in the order of the limits, settled USD and tokens, held USD and tokens, as doubles; heldAtMs alone when it
--         was held before. Else {'DONE', marker} · {'STALE_WINDOW', nowMs} · {'MISS', scope index, interval, ...} · {'PREVIOUS', attemptKey}
--         · {'REFUSED' | 'HELD', limit index, settled, held, interval}
local call, attemptKey, callKey, wanted, previous = redis.call, ARGV[1], ARGV[2], ARGV[3], ARGV[8]
local scopeCount, older = #KEYS - (previous and 4 or 2), nil

-- The marker comes before the record: an attempt that is over is never revived by a repeated command. Behind it the scopes.
local states = call('MGET', unpack(KEYS, 2, 2 + scopeCount))
if states[1] then return { 'DONE', states[1] } end

-- An older attempt of this call that was not sent yet gives way. Two attempts of one call can be here at once when a frozen worker
-- wakes up: after this its mark-sent fails.
local text = call('HGET', KEYS[1], callKey)
if text then
  local own = recordOf(text, attemptKey)
  if own then return pack('<d', own.heldAt) end
  older = recordOf(text)
  -- A record of another server process may be older than its "sent".
  if older.sent ~= 'n' or not isOfRun(tailOf(text, older), string.match(wanted, ':(.*)$')) then older = nil end
  if older and older.key ~= previous then return { 'PREVIOUS', older.key } end
end

local spec, now = specOf(ARGV[7]), nowMs()
if (now < spec.from or now >= spec.untilMs) and not turn(spec, now) then return { 'STALE_WINDOW', now } end

local nano, tokens, size = ARGV[4] + 0, ARGV[5] + 0, #wanted
local groupsOf, groupStarts, groupStops, mostUsd, mostTokens = spec.groupsOf, spec.groupStarts, spec.groupStops, spec.mostUsd, spec.mostTokens
-- Four for each counter that changes: the number of its scope, where, and what it holds before.
local changes, last = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, 0
local found, places, isTight = { nil, nil, nil, nil }, { '', '', '', '', '' }, false
for scope = 1, scopeCount do
  local state, counted, identities = states[1 + scope], 0, ''
  if state and sub(state, 1, size) == wanted then
    local count = byte(state, size + 1 + COUNT_AT)
    local first = size + 1 + BLOCKS_AT
    -- Every counter whose interval it is, whoever asked for it.
    for block = first, first + BLOCK_SIZE * (count - 1), BLOCK_SIZE do
      local start, stop, usd, others, usdHeld, othersHeld = read(COUNTER, state, block)
      if now >= start and now < stop then
        counted = counted + 1
        if count > 1 or older then
          local identity = sub(state, block, block + IDENTITY_SIZE - 1)
          identities = identities .. identity
          -- What the older hold will give back counts as free.
          if older and isCountedIn(text, older, scope, identity) then
            usdHeld, othersHeld = usdHeld - older.nano, othersHeld - older.tokens
          end
        end
        changes[last + 1], changes[last + 2], changes[last + 3], changes[last + 4] = scope, block + 47, usdHeld, othersHeld
        last = last + 4
        local groups = groupsOf[scope]
        for index = 1, #groups do
          local group = groups[index]
          if groupStarts[group] == start and groupStops[group] == stop then
            if usd + usdHeld + nano > mostUsd[group] or others + othersHeld + tokens > mostTokens[group] then isTight = true end
            found[group] = older and pack('<dddd', usd, others, usdHeld, othersHeld) or sub(state, block + 32, block + 63)
          end
        end
      end
    end
    if count == 1 and counted == 1 then
      places[scope] = sub(state, first - 17, first + 31)
    else
      places[scope] = sub(state, first - 17, first - 2) .. string.char(counted) .. identities
    end
  else
    places[scope] = NOWHERE
  end
end

local missing
for group = 1, #groupStarts do
  if not found[group] then
    missing = missing or { 'MISS' }
    missing[#missing + 1], missing[#missing + 2] = spec.groupScopes[group], nameOf(groupStarts[group], groupStops[group])
  end
end
if missing then return missing end
if isTight then
  local refusal = judge(spec, found, nano, tokens)
  if refusal then return refusal end
end

if older then
  call('SET', KEYS[#KEYS], 'void', 'PX', ARGV[9])
  tellNobody()
  moveOut(KEYS, 3, text, older.places, older.count, older.key, older.nano, older.tokens, 0, 0)
  text = replaced(text, older, '')
  call('ZREM', KEYS[#KEYS - 1], previous)
  -- Moving out may have ended a scope that could not be counted down.
  states = call('MGET', unpack(KEYS, 2, 2 + scopeCount))
else
  tellNobody()
end
for at = 1, last, 4 do
  local scope, usd, others = changes[at], changes[at + 2] + nano, changes[at + 3] + tokens
  if usd >= EXACT then usd = INFINITE end
  if others >= EXACT then others = INFINITE end
  if states[1 + scope] then
    call('SETRANGE', KEYS[2 + scope], textOf(changes[at + 1]), pack('<dd', usd, others))
  else
    places[scope] = NOWHERE
  end
end
local one, two, three, four, five, behind = places[1], places[2], places[3], places[4], places[5], ARGV[6]
local recordSize = FIXED_SIZE + #attemptKey + #one + #two + #three + #four + #five + size + #behind + 3
local record = pack(FIXED, now, 0, nano, tokens, 'n', scopeCount, recordSize) .. attemptKey .. '\0' .. one .. two .. three .. four .. five
  .. wanted .. '\0' .. behind .. '\0'
call('HSET', KEYS[1], callKey, text and text .. record or record)
return pack('<d', now) .. spec.flags .. table.concat(found)
