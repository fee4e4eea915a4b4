-- The versions of scopes, '' where one is not hydrated. KEYS: scopes...   ARGV: '<generation>:<run id>'
local versions = {}
for index, state in ipairs(redis.call('MGET', unpack(KEYS))) do
  local version = versionOf(state, ARGV[1])
  versions[index] = version == NONE and '' or version
end
return versions
