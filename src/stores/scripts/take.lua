-- Takes a hold away from an attempt that is not sent and whose lease is over. It prevents the race in which a reaper voids a row in
-- Postgres while a slow worker marks the same attempt sent: only one of the two scripts can come first.
-- KEYS: holds, leases, done, scopes...   ARGV: attemptKey, callKey, ttlMs, Redis' run id
-- Returns {'DONE', marker} · {'NONE'} · {'LIVE', leaseUntilMs} · {'SENT', output tokens seen} · {'TAKEN'}
local attemptKey, callKey = ARGV[1], ARGV[2]
local marker = redis.call('GET', KEYS[3])
if marker then return { 'DONE', marker } end
local text = redis.call('HGET', KEYS[1], callKey)
local record = recordOf(text, attemptKey)
if not record then return { 'NONE' } end
local lease = redis.call('ZSCORE', KEYS[2], attemptKey)
if lease and lease + 0 > nowMs() then return { 'LIVE', lease } end
-- "Not sent" counts only from the server process that made the record: a snapshot may be older than the mark.
if record.sent ~= 'n' or not isOfRun(record.hydrated, ARGV[4]) then
  if record.sent ~= 'y' then forgetUncounted(KEYS, 4, text, record) end
  return { 'SENT', record.seen }
end
moveOut(KEYS, 4, text, record, 0, 0)
removeRecord(KEYS[1], callKey, text, record)
redis.call('ZREM', KEYS[2], attemptKey)
redis.call('SET', KEYS[3], 'void', 'PX', ARGV[3])
return { 'TAKEN' }
