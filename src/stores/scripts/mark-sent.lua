-- Last step before the request: from here on the attempt may have reached the provider. Fails when the hold is gone, was made by
-- another server process, or when one of its scopes was rebuilt from a Postgres that did not know the attempt yet.
-- KEYS: holds, leases, done, scopes...   ARGV: attemptKey, callKey, leaseMs, '<generation>:<run id>'
-- Returns 1, or 0 when the attempt must be voided
local attemptKey, callKey, wanted = ARGV[1], ARGV[2], ARGV[4]
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local text = redis.call('HGET', KEYS[1], callKey)
local record = recordOf(text, attemptKey)
if not record then return 0 end
-- Read from a snapshot, it may have been taken since; and where no scope has a limit, no version tells.
if not isOfRun(tailOf(text, record), string.match(wanted, ':(.*)$')) then return 0 end
local states, at = redis.call('MGET', unpack(KEYS, 4)), record.places
for index = 1, record.count do
  local version, counted, identities = read(PLACE, text, at)
  at = identities + IDENTITY_SIZE * counted
  if versionOf(states[index], wanted) ~= version then return 0 end
end
tellNobody()
for index = 4, #KEYS do
  if states[index - 3] then disturb(KEYS[index], states[index - 3]) end
end
record.sent = 'y'
writeRecord(KEYS[1], callKey, text, record)
redis.call('ZADD', KEYS[2], nowMs() + ARGV[3], attemptKey)
return 1
