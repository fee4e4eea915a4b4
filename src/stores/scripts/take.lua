-- Takes a hold away from an attempt that is not sent and whose lease is over. It prevents the race in which a reaper voids a row in
-- Postgres while a slow worker marks the same attempt sent: only one of the two scripts can come first.
-- KEYS: holds, leases, done, scopes...   ARGV: attemptKey, ttlMs, Redis' run id, number of scopes, kind and id per scope
-- Returns {'DONE', marker} · {'NONE'} · {'LIVE', leaseUntilMs} · {'SENT', output tokens seen} · {'TAKEN'}
local attemptKey, ttlMs, runId, count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local scopes = readScopes(4, 5, count)

-- An attempt that nobody is known to have marked is about to be booked as if it was sent. A counter that was rebuilt before its row was
-- there does not know it, and would never be told: it is rebuilt once more. Holds that relied on it are not marked any more.
local function forgetUncounted(record)
  for _, entry in ipairs(record.scopes) do
    local index = scopeIndex(scopes, entry[1], entry[2])
    local intervals = index and redis.call('HGET', scopes[index].key, 'intervals') or ''
    for interval in string.gmatch(intervals, '([^;]+);') do
      local at = 4
      while entry[at] and entry[at] ~= interval do at = at + 2 end
      local isCounted = entry[at] and redis.call('HGET', scopes[index].key, interval .. ':token') == entry[at + 1]
      if covers(interval, tonumber(record.heldAt)) and not isCounted then
        redis.call('HDEL', scopes[index].key, 'hydrated', 'hydrating', 'version', 'intervals')
      end
    end
  end
end

local marker = redis.call('GET', KEYS[3])
if marker then return { 'DONE', marker } end
local text = redis.call('HGET', KEYS[1], attemptKey)
if not text then return { 'NONE' } end
local record = cjson.decode(text)
local lease = redis.call('ZSCORE', KEYS[2], attemptKey)
if lease and tonumber(lease) > nowMs() then return { 'LIVE', lease } end
-- "Not sent" counts only from the server process that made the record: a snapshot may be older than the mark.
if record.sent ~= 'no' or record.run ~= runId then
  if record.sent ~= 'yes' then forgetUncounted(record) end
  return { 'SENT', record.seen }
end
moveOut(attemptKey, record, scopes, '0', '0')
redis.call('HDEL', KEYS[1], attemptKey)
redis.call('ZREM', KEYS[2], attemptKey)
redis.call('SET', KEYS[3], 'void', 'PX', ttlMs)
return { 'TAKEN' }
