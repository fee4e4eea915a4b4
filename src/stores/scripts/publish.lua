-- Makes a batch of events of one task visible in one step: de-duplication, sequence, ring, call texts, and the two feeds of the shard.
-- KEYS: ring, meta, live feed, log feed, count (the number of the newest entry of the live feed), then the text of each call
-- ARGV: Redis run id, Temporal run id, ring capacity, ttlMs, ttlMs after the end, largest call text, capacity of the live feed, '1' where
--   deltas are kept in the ring, task id, the epoch that the task is in by the caller's knowledge ('' for any), 'all' where these are all
--   milestones without a number, or the epoch in which all were published that had none at its beginning ('' for neither), number of calls,
--   number of milestones;
--   bodies of all events as a JSON array, their lengths in bytes, separated by commas, and for the log a JSON array of [event id, index
--   in the batch from 1] of all milestones;
--   names of fields of meta: 'order:', 'k:', 'attempt:' .. call key for each call, 'id:' .. event id (as JSON) for each milestone;
--   then what the events are, in PARTs:
--     'm', n                                           milestones
--     's', call, order, attempt key                    a milestone: text of attempts below this order is void; the key of the one that
--                                                      begins, or ''
--     'c', call, order, attempt key, bytes of its text a milestone: the call is complete
--     'e'                                              a milestone: the run ends
--     'd', n, call, order, attempt key, k of the first, texts of all in one, lengths of each in bytes, separated by commas
--                                                      deltas of one attempt, one after the other
-- meta is a hash: server, run, epoch, seq, ended; 'id:<event id>' -> seq; of each call the newest attempt, its order, and its last k; fresh,
--   the time at which its expiry was set last, in hundreds of seconds; pending, while milestones have no number that an older epoch may have
--   shown: they come before all else in this one
-- Returns {'MISS', epoch, run} when the counter is not that of this server, run and epoch: what it is of, or '' and '' where this server
--   has none; {'PENDING', epoch} when other milestones come first. Else {'OK', epoch, seq before, then pairs: index of an event from 1, its
--   answer}. Events that are not named were given the numbers that follow, one after the other. Answers: the number that a milestone had
--   already, 0 for a delta that was there, -1 for what is refused, because the run has ended or a newer attempt of the call has begun.
-- Entries: live {n, t, r, e, s, b, d}: task, run, epoch, number of the first event, bodies as a JSON array, '1' where the ring has the deltas
--   too; ring {s, b}, with the number of the last event in its id; log {t, r, e, s, m}: number before the first event, and a JSON array of [event id, what to add to it].
-- What takes time is calls of Redis, and tables and texts that are built: so there is one entry for each batch, and its texts come ready,
-- as they are where every event is new.
local meta = KEYS[2]
local calls = ARGV[12] + 0
local at = 17 + 3 * calls + ARGV[13]
local known = redis.call('HMGET', meta, 'server', 'run', 'epoch', 'seq', 'ended', 'fresh', 'pending', unpack(ARGV, 17, at - 1))
if known[1] ~= ARGV[1] then return { 'MISS', '', '' } end
local epoch = known[3]
if known[2] ~= ARGV[2] or (ARGV[10] ~= '' and epoch ~= ARGV[10]) then return { 'MISS', epoch, known[2] } end
local isSettled = ARGV[11] == 'all' or ARGV[11] == epoch
if known[7] and not isSettled and ARGV[10] == '' then return { 'PENDING', epoch } end

-- After a restart the counter counts for nothing, and a replica is another server: neither needs to be told of anything but the log.
redis.set_repl(redis.REPL_NONE)
if known[7] and isSettled then redis.call('HDEL', meta, 'pending') end
local before, ended, maxText = known[4] + 0, known[5] == '1', ARGV[6] + 0
local seq, index, field, logged = before, 0, 7 + 3 * calls, false
local changes, changed = { 'seq', 0 }, 2
local answer = { 'OK', epoch, known[4] }
-- Indexes of events that are left out, and of those whose body says that text was lost; nil where there is none.
local out, lost

local function leaveOut(result)
  index = index + 1
  out = out or {}
  out[index] = true
  answer[#answer + 1] = index
  answer[#answer + 1] = result
end

local function change(name, value)
  changes[changed + 1] = name
  changes[changed + 2] = value
  changed = changed + 2
end

local function showMilestones(count)
  for _ = 1, count do
    field = field + 1
    if known[field] then
      leaveOut(known[field] + 0)
    elseif ended then
      leaveOut(-1)
    else
      index = index + 1
      seq = seq + 1
      logged = true
      changes[changed + 1] = ARGV[field + 9]
      changes[changed + 2] = seq
      changed = changed + 2
    end
  end
end

-- The parts of a text that have these lengths.
local function cut(text, lengths, from)
  local parts = {}
  for length in string.gmatch(lengths, '%d+') do
    parts[#parts + 1] = string.sub(text, from.at, from.at + length - 1)
    from.at = from.at + length + from.gap
  end
  return parts
end

-- Order, last k and attempt of the newest attempt of a call lie side by side in `known`. A newer one begins its text anew.
local function supersede(call, order, attempt)
  local place = 5 + 3 * call
  if order <= (known[place] or -1) + 0 then return end
  redis.call('DEL', KEYS[5 + call])
  known[place], known[place + 1], known[place + 2] = order, -1, attempt
  change(ARGV[place + 9], order)
  change(ARGV[place + 10], -1)
  change(ARGV[place + 11], attempt)
end

local function showDeltas(count, call, order, attempt, k, text, lengths)
  local place = 5 + 3 * call
  if ended or order < (known[place] or -1) + 0 then
    for _ = 1, count do leaveOut(-1) end
    return
  end
  supersede(call, order, attempt)
  local last = (known[place + 1] or -1) + 0
  local there = math.max(0, math.min(count, last - k + 1))
  for _ = 1, there do leaveOut(0) end
  if there == count then return end
  if there > 0 then text = table.concat(cut(text, lengths, { at = 1, gap = 0 }), '', there + 1) end
  index = index + count - there
  seq = seq + count - there
  known[place + 1] = k + count - 1
  change(ARGV[place + 10], known[place + 1])
  local key = KEYS[5 + call]
  if last < 0 then
    redis.call('SET', key, text, 'PX', ARGV[4])
  elseif redis.call('STRLEN', key) < maxText then
    redis.call('APPEND', key, text)
  end
end

-- From here on text of older attempts is refused, whether the new one has any or not.
local function turnCall(call, order, attempt)
  local shown = seq
  showMilestones(1)
  if seq > shown then supersede(call, order, attempt) end
end

-- Where a call's text is not all that was streamed, a reader asks for the whole answer.
local function completeCall(call, order, attempt, bytes)
  local shown = seq
  showMilestones(1)
  if seq == shown then return end
  local key = KEYS[5 + call]
  if bytes > 0 then
    local length = redis.call('STRLEN', key)
    if known[7 + 3 * call] ~= attempt or length ~= bytes then
      lost = lost or {}
      lost[index] = true
    end
  end
  redis.call('PEXPIRE', key, ARGV[5])
  -- A trip with text that was given up may arrive yet: behind the end of its call it would stand behind the whole answer.
  known[5 + 3 * call] = order
  change(ARGV[14 + 3 * call], order)
end

while at <= #ARGV do
  local kind = ARGV[at]
  if kind == 'm' then
    showMilestones(ARGV[at + 1] + 0)
    at = at + 2
  elseif kind == 'd' then
    showDeltas(ARGV[at + 1] + 0, ARGV[at + 2] + 0, ARGV[at + 3] + 0, ARGV[at + 4], ARGV[at + 5] + 0, ARGV[at + 6], ARGV[at + 7])
    at = at + 8
  elseif kind == 's' then
    turnCall(ARGV[at + 1] + 0, ARGV[at + 2] + 0, ARGV[at + 3])
    at = at + 4
  elseif kind == 'c' then
    completeCall(ARGV[at + 1] + 0, ARGV[at + 2] + 0, ARGV[at + 3], ARGV[at + 4] + 0)
    at = at + 5
  else
    local shown = seq
    showMilestones(1)
    if seq > shown then
      ended = true
      change('ended', '1')
    end
    at = at + 1
  end
end
if seq == before then return answer end

local batch, log = ARGV[14], ARGV[16]
-- In the ring: rows of events, by their first and their last among those that are shown.
local bodies, rows
if out or lost or ARGV[8] ~= '1' then
  local all, entries = cut(batch, ARGV[15], { at = 2, gap = 1 }), {}
  local ofLog = cjson.decode(log)
  local n, milestone = 0, 1
  bodies, rows = {}, {}
  for i = 1, index do
    local isMilestone = ofLog[milestone] and ofLog[milestone][2] == i
    if not (out and out[i]) then
      n = n + 1
      bodies[n] = lost and lost[i] and string.sub(all[i], 1, -2) .. ',"textLost":true}' or all[i]
      if isMilestone then entries[#entries + 1] = '[' .. string.sub(ARGV[16 + 3 * calls + milestone], 4) .. ',' .. n .. ']' end
      if isMilestone or ARGV[8] == '1' then
        if rows[#rows] == n - 1 then
          rows[#rows] = n
        else
          rows[#rows + 1] = n
          rows[#rows + 1] = n
        end
      end
    end
    if isMilestone then milestone = milestone + 1 end
  end
  batch = '[' .. table.concat(bodies, ',') .. ']'
  log = '[' .. table.concat(entries, ',') .. ']'
end

local ring, least = KEYS[1], epoch .. '-' .. math.max(0, seq - ARGV[3] + 1)
if not rows then
  redis.call('XADD', ring, 'MINID', least, epoch .. '-' .. seq, 's', before + 1, 'b', batch)
else
  for n = 1, #rows, 2 do
    local first, last = rows[n], rows[n + 1]
    redis.call('XADD', ring, 'MINID', least, epoch .. '-' .. (before + last), 's', before + first,
      'b', '[' .. table.concat(bodies, ',', first, last) .. ']')
  end
end
local entry = redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[7], '*', 'n', redis.call('INCR', KEYS[5]), 't', ARGV[9], 'r', ARGV[2],
  'e', epoch, 's', before + 1, 'b', batch, 'd', ARGV[8])
local time = string.sub(entry, 1, 8)
local isStale = ended or known[6] ~= time
changes[2] = seq
if isStale then change('fresh', time) end
redis.call('HSET', meta, unpack(changes))
if isStale then
  local ttlMs = ended and ARGV[5] or ARGV[4]
  redis.call('PEXPIRE', ring, ttlMs)
  redis.call('PEXPIRE', meta, ttlMs)
end
redis.set_repl(redis.REPL_ALL)
if logged then redis.call('XADD', KEYS[4], '*', 't', ARGV[9], 'r', ARGV[2], 'e', epoch, 's', before, 'm', log) end
return answer
