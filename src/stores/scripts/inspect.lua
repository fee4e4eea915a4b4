-- What a scope counts, and what the records of holds say it should hold: read in one moment, to be compared.
-- KEYS: holds, scope   ARGV: kind, id, '<generation>:<run id>'
-- Returns {} when the scope is not hydrated, else {nowMs, then per interval: its name, settled nano, settled tokens, held nano, held tokens,
-- nano and tokens of the records that it counts, and their attempt keys with spaces between}
local version, intervals = validState(KEYS[2], ARGV[3])
if version == '' then return {} end
local counters, byToken = {}, {}
for interval in string.gmatch(intervals, '([^;]+);') do
  local found = redis.call('HMGET', KEYS[2], interval .. ':usd:settled', interval .. ':tokens:settled',
    interval .. ':usd:held', interval .. ':tokens:held', interval .. ':token')
  local counter = { interval = interval, found = found, nano = 0, tokens = 0, keys = {} }
  counters[#counters + 1] = counter
  byToken[interval .. ' ' .. found[5]] = counter
end

-- A record is read once, whatever it is counted in: there may be thousands, and everybody waits meanwhile.
local records = redis.call('HGETALL', KEYS[1])
for place = 1, #records, 2 do
  local record = cjson.decode(records[place + 1])
  for _, entry in ipairs(record.scopes) do
    if entry[1] == ARGV[1] and entry[2] == ARGV[2] then
      for at = 4, #entry, 2 do
        local counter = byToken[entry[at] .. ' ' .. entry[at + 1]]
        if counter then
          counter.nano, counter.tokens = counter.nano + record.nano, counter.tokens + record.tokens
          counter.keys[#counter.keys + 1] = records[place]
        end
      end
    end
  end
end

local answer = { string.format('%.0f', nowMs()) }
for _, counter in ipairs(counters) do
  for _, value in ipairs({ counter.interval, counter.found[1], counter.found[2], counter.found[3], counter.found[4],
    string.format('%.0f', counter.nano), string.format('%.0f', counter.tokens), table.concat(counter.keys, ' ') }) do
    answer[#answer + 1] = value
  end
end
return answer
