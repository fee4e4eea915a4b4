-- What the scripts of a fleet's breaker have in common; they are appended to it. The server's clock decides.
-- KEYS: state (hash: state, until: ms, era: us of the last change, successes), counts (hash <slice's start in ms>:calls and :failures),
--   probes (zset token -> ms until which it is taken to be under way)
-- ARGV: channel, name, intervalMs, timeoutMs, failureThreshold, successThreshold, maxRequests, slices, then the script's own
local channel, name = ARGV[1], ARGV[2]
local intervalMs, timeoutMs = tonumber(ARGV[3]), tonumber(ARGV[4])
local failureThreshold, successThreshold = tonumber(ARGV[5]), tonumber(ARGV[6])
local maxRequests, slices = tonumber(ARGV[7]), tonumber(ARGV[8])
local DAY_MS = 86400000

local time = redis.call('TIME')
local nowUs = tonumber(time[1]) * 1000000 + tonumber(time[2])
local nowMs = math.floor(nowUs / 1000)
local read = redis.call('HMGET', KEYS[1], 'state', 'until', 'era', 'successes')
local state, untilMs, era, successes =
  read[1] or 'closed', tonumber(read[2] or '0'), tonumber(read[3] or '0'), tonumber(read[4] or '0')

local function whole(number) return string.format('%.0f', number) end

-- A model that nobody calls any more leaves nothing behind.
local function keep(key) redis.call('PEXPIRE', key, whole(DAY_MS + 2 * (intervalMs + timeoutMs))) end

local function leftMs() return state == 'open' and math.max(0, untilMs - nowMs) or 0 end

-- Later changes have higher eras, so that a listener can tell which of two it heard of last.
local function change(to)
  state, untilMs, era, successes = to, to == 'open' and nowMs + timeoutMs or 0, math.max(nowUs, era + 1), 0
  redis.call('HSET', KEYS[1], 'state', state, 'until', whole(untilMs), 'era', whole(era), 'successes', '0')
  redis.call('DEL', KEYS[2], KEYS[3])
  keep(KEYS[1])
  redis.call('PUBLISH', channel, cjson.encode({ name = name, state = state, leftMs = leftMs(), era = whole(era) }))
end

-- Numbers as text: an era is above what a reply's integer is safe for in every client.
local function answer(verdict) return { verdict, state, whole(leftMs()), whole(era) } end

-- One that was never heard of, or that was forgotten, begins now: its era is above all that went before.
if not read[1] then change('closed') end
