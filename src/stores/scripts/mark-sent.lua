-- Last step before the request: from here on the attempt may have reached the provider. Fails when the hold is gone, was made by
-- another server process, or when one of its scopes was rebuilt from a Postgres that did not know the attempt yet.
-- KEYS: holds, leases, done, scopes...   ARGV: attemptKey, leaseMs, '<generation>:<run id>', number of scopes, kind and id per scope
-- Returns 1, or 0 when the attempt must be voided
local attemptKey, leaseMs, wanted, count = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local scopes = readScopes(4, 5, count)
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local text = redis.call('HGET', KEYS[1], attemptKey)
if not text then return 0 end
local record = cjson.decode(text)
-- Read from a snapshot, it may have been taken since; and where no scope has a limit, no version tells.
if record.run ~= string.match(wanted, ':(.*)$') then return 0 end
for _, entry in ipairs(record.scopes) do
  local index = scopeIndex(scopes, entry[1], entry[2])
  if index and validState(scopes[index].key, wanted) ~= entry[3] then return 0 end
end
for _, scope in ipairs(scopes) do disturb(scope.key) end
record.sent = 'yes'
redis.call('HSET', KEYS[1], attemptKey, cjson.encode(record))
redis.call('ZADD', KEYS[2], nowMs() + leaseMs, attemptKey)
return 1
