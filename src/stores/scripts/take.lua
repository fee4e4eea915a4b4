-- Takes a hold away from an attempt that is not sent and whose lease is over. It prevents the race in which a reaper voids a row in
-- Postgres while a slow worker marks the same attempt sent: only one of the two scripts can come first.
-- KEYS: holds, leases, done, scopes...   ARGV: attemptKey, callKey, ttlMs, Redis' run id, leaseMs
-- Returns {'DONE', marker} · {'NONE'} · {'LIVE', leaseUntilMs} · {'SENT', output tokens seen} · {'TAKEN'}
local attemptKey, callKey = ARGV[1], ARGV[2]
local marker = redis.call('GET', KEYS[3])
if marker then return { 'DONE', marker } end
local text = redis.call('HGET', KEYS[1], callKey)
local record = recordOf(text, attemptKey)
if not record then return { 'NONE' } end
local untilMs = leaseOf(KEYS[2], record, attemptKey, ARGV[5])
if untilMs and untilMs > nowMs() then return { 'LIVE', string.format('%.0f', untilMs) } end
-- "Not sent" counts only from the server process that made the record: a snapshot may be older than the mark.
if record.sent ~= 'n' or not isOfRun(tailOf(text, record), ARGV[4]) then
  tellNobody()
  if record.sent ~= 'y' then forgetUncounted(KEYS, 4, text, record) end
  return { 'SENT', record.seen }
end
redis.call('SET', KEYS[3], 'void', 'PX', ARGV[3])
tellNobody()
moveOut(KEYS, 4, text, record.places, record.count, record.key, record.nano, record.tokens, 0, 0)
removeRecord(KEYS[1], callKey, text, record)
redis.call('ZREM', KEYS[2], attemptKey)
return { 'TAKEN' }
