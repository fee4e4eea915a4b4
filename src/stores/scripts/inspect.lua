-- What a scope counts, and what the records of holds say it should hold: read in one moment, to be compared.
-- KEYS: holds, scope   ARGV: '<generation>:<run id>'
-- Returns {} when the scope is not hydrated, else {nowMs, then per interval: its name, settled nano, settled tokens, held nano, held tokens,
-- nano and tokens of the records that it counts, and their attempt keys with spaces between}
local state = redis.call('GET', KEYS[2])
if versionOf(state, ARGV[1]) == NONE then return {} end
local counters, byIdentity = {}, {}
local _, _, _, _, blocks, from = read(HEAD, state)
for block = from, from + BLOCK_SIZE * (blocks - 1), BLOCK_SIZE do
  local start, stop, _, settledUsd, settledTokens, heldUsd, heldTokens = read(BLOCK, state, block)
  local counter = {
    found = { settledUsd, settledTokens, heldUsd, heldTokens }, interval = nameOf(start, stop), nano = 0, tokens = 0, keys = {},
  }
  counters[#counters + 1] = counter
  byIdentity[string.sub(state, block, block + IDENTITY_SIZE - 1)] = counter
end

-- A record is read once, whatever it is counted in: there may be thousands, and everybody waits meanwhile. What its counters are called is
-- unique, so that those of other scopes are none of these.
for _, text in ipairs(redis.call('HVALS', KEYS[1])) do
  local at = 1
  while at <= #text do
    local _, _, nano, tokens, _, count, size, attemptKey, place = read(RECORD, text, at)
    for _ = 1, count do
      local _, counted, identities = read(PLACE, text, place)
      place = identities + IDENTITY_SIZE * counted
      for held = identities, place - 1, IDENTITY_SIZE do
        local counter = byIdentity[sub(text, held, held + IDENTITY_SIZE - 1)]
        if counter then
          counter.nano, counter.tokens = sumOf(counter.nano, nano), sumOf(counter.tokens, tokens)
          counter.keys[#counter.keys + 1] = attemptKey
        end
      end
    end
    at = at + size
  end
end

local answer = { string.format('%.0f', nowMs()) }
for _, counter in ipairs(counters) do
  answer[#answer + 1] = counter.interval
  for _, amount in ipairs(counter.found) do answer[#answer + 1] = string.format('%.0f', told(amount)) end
  answer[#answer + 1] = string.format('%.0f', told(counter.nano))
  answer[#answer + 1] = string.format('%.0f', told(counter.tokens))
  answer[#answer + 1] = table.concat(counter.keys, ' ')
end
return answer
