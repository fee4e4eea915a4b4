-- What a scope counts, and what the records of holds say it should hold: read in one moment, to be compared.
-- KEYS: holds, scope   ARGV: kind, id, '<generation>:<run id>'
-- Returns {} when the scope is not hydrated, else {interval, settled nano, settled tokens, held nano, held tokens, nano and tokens of its
-- records, ...}
local version, intervals = validState(KEYS[2], ARGV[3])
if version == '' then return {} end
local records = redis.call('HVALS', KEYS[1])
local answer = {}
for interval in string.gmatch(intervals, '([^;]+);') do
  local counter = redis.call('HMGET', KEYS[2], interval .. ':usd:settled', interval .. ':tokens:settled',
    interval .. ':usd:held', interval .. ':tokens:held', interval .. ':token')
  local nano, tokens = 0, 0
  for _, text in ipairs(records) do
    local record = cjson.decode(text)
    for _, entry in ipairs(record.scopes) do
      if entry[1] == ARGV[1] and entry[2] == ARGV[2] then
        for at = 4, #entry, 2 do
          if entry[at] == interval and entry[at + 1] == counter[5] then
            nano, tokens = nano + tonumber(record.nano), tokens + tonumber(record.tokens)
          end
        end
      end
    end
  end
  for _, value in ipairs({ interval, counter[1], counter[2], counter[3], counter[4], string.format('%.0f', nano),
    string.format('%.0f', tokens) }) do
    answer[#answer + 1] = value
  end
end
return answer
