-- Takes a hold away from an attempt that is not sent and whose lease is over. It prevents the race in which a reaper voids a row in
-- Postgres while a slow worker marks the same attempt sent: only one of the two scripts can come first.
-- KEYS: holds, leases, done, scopes...   ARGV: attemptKey, ttlMs, Redis' run id, number of scopes, kind and id per scope
-- Returns {'DONE', marker} · {'NONE'} · {'LIVE', leaseUntilMs} · {'SENT', output tokens seen} · {'TAKEN'}
local attemptKey, ttlMs, runId, count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local scopes = readScopes(4, 5, count)
local marker = redis.call('GET', KEYS[3])
if marker then return { 'DONE', marker } end
local text = redis.call('HGET', KEYS[1], attemptKey)
if not text then return { 'NONE' } end
local record = cjson.decode(text)
local lease = redis.call('ZSCORE', KEYS[2], attemptKey)
if lease and tonumber(lease) > nowMs() then return { 'LIVE', lease } end
-- "Not sent" counts only from the server process that made the record: a snapshot may be older than the mark.
if record.sent ~= 'no' or record.run ~= runId then return { 'SENT', record.seen } end
moveOut(record, scopes, '0', '0')
redis.call('HDEL', KEYS[1], attemptKey)
redis.call('ZREM', KEYS[2], attemptKey)
redis.call('SET', KEYS[3], 'void', 'PX', ttlMs)
return { 'TAKEN' }
