-- Makes a batch of events of one task visible: de-duplication, sequence, ring and call text in one round trip.
-- KEYS: ring, meta, text keys...
-- ARGV: Redis run id, Temporal run id, capacity, ttlMs, ttlMs after the end, largest call text,
--       then JSON: [{id, type, body (text), call, order, k, text, textKey (index into KEYS)}]
-- meta is a hash: server, run, epoch, seq, ended; 'id:<event id>' -> seq; 'order:', 'k:', 'attempt:' .. call key of the newest attempt
-- Returns {'MISS'} when the counter is not that of this server and run, else {'OK', epoch, seq before, seq or -1 per event}: an event
-- that was visible already has a seq that is not above the one before.
-- -1: refused, because the run has ended, an attempt is not the newest of its call, or a delta came twice.
local server, run = ARGV[1], ARGV[2]
local capacity, ttlMs, endTtlMs, maxText = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local ring, meta = KEYS[1], KEYS[2]
local known = redis.call('HMGET', meta, 'server', 'run', 'epoch', 'seq', 'ended')
if known[1] ~= server or known[2] ~= run then return { 'MISS' } end
local epoch, seq, ended = known[3], tonumber(known[4]), known[5]

local function isNewest(event)
  local newest = tonumber(redis.call('HGET', meta, 'order:' .. event.call) or '-1')
  if event.order < newest then return false end
  if event.order > newest then
    redis.call('HSET', meta, 'order:' .. event.call, event.order, 'k:' .. event.call, -1, 'attempt:' .. event.call, event.attempt)
    redis.call('DEL', KEYS[event.textKey])
  end
  return true
end

local function isRepeat(event)
  if event.type ~= 'call_delta' then return false end
  if event.k <= tonumber(redis.call('HGET', meta, 'k:' .. event.call) or '-1') then return true end
  redis.call('HSET', meta, 'k:' .. event.call, event.k)
  if redis.call('STRLEN', KEYS[event.textKey]) < maxText then redis.call('APPEND', KEYS[event.textKey], event.text) end
  redis.call('PEXPIRE', KEYS[event.textKey], ttlMs)
  return false
end

local answers = { 'OK', epoch, known[4] }
for _, event in ipairs(cjson.decode(ARGV[7])) do
  local before = event.type ~= 'call_delta' and redis.call('HGET', meta, 'id:' .. event.id)
  local answer = -1
  if before then
    answer = tonumber(before)
  elseif ended ~= '1' and (not event.order or isNewest(event)) and not isRepeat(event) then
    seq = seq + 1
    answer = seq
    local id = string.format('%s-%.0f', epoch, seq)
    redis.call('XADD', ring, 'MAXLEN', capacity, id, 'e', event.body)
    if event.type ~= 'call_delta' then redis.call('HSET', meta, 'id:' .. event.id, string.format('%.0f', seq)) end
    if event.type == 'call_completed' then redis.call('PEXPIRE', KEYS[event.textKey], endTtlMs) end
    if event.type == 'stream_end' then ended = '1' end
  end
  answers[#answers + 1] = answer
end
redis.call('HSET', meta, 'seq', string.format('%.0f', seq))
if ended == '1' then
  redis.call('HSET', meta, 'ended', '1')
  ttlMs = endTtlMs
end
redis.call('PEXPIRE', ring, ttlMs)
redis.call('PEXPIRE', meta, ttlMs)
return answers
