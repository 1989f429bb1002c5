-- KEYS <prefix>:{<part>}:fleeting: sorted set of "<group> <message id>", messages to cancel on disconnect, by when (µs)
-- ARGV grace (µs), 'XX' for existing members only or 'NX' to add new ones, member, …
-- → {the new deadline (µs since 1970), the members that have it, …}
local time = redis.call('TIME')
local deadline = string.format('%.0f', time[1] * 1000000 + time[2] + ARGV[1])
local result = {deadline}
for i = 3, #ARGV do
  local exists = redis.call('ZREM', KEYS[1], ARGV[i]) == 1
  if exists or ARGV[2] == 'NX' then
    redis.call('ZADD', KEYS[1], deadline, ARGV[i])
    result[#result + 1] = ARGV[i]
  end
end
return result
