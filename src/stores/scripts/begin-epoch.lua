-- Starts a new epoch of a task's events. Publishers that missed at once may bring several: the highest is the one that Postgres knows,
-- and one that comes late, from a process that was held up, changes nothing.
-- KEYS: ring, meta   ARGV: Redis run id, Temporal run id, epoch, highest stored seq, ttlMs, 1 when the run has ended, 1 when milestones of
--   it have no number; then names and values of what was told of calls
-- Returns 1 when the epoch was started here, else 0
local known = redis.call('HMGET', KEYS[2], 'server', 'epoch')
if known[1] == ARGV[1] and known[2] + 0 >= ARGV[3] + 0 then return 0 end
redis.set_repl(redis.REPL_NONE)
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[2], 'server', ARGV[1], 'run', ARGV[2], 'epoch', ARGV[3], 'seq', ARGV[4])
if ARGV[8] then redis.call('HSET', KEYS[2], unpack(ARGV, 8)) end
if ARGV[6] == '1' then redis.call('HSET', KEYS[2], 'ended', '1') end
if ARGV[7] == '1' then redis.call('HSET', KEYS[2], 'pending', '1') end
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return 1
