-- KEYS chat:fleeting: sorted set, "<group> <message id>" of answers that are for their readers only, by when to stop them (µs)
-- ARGV grace (µs), 'XX' for those who are there already or 'NX' for a new one, member, …
-- → {until when they are read (µs since 1970), those of the members that are there, …}
local time = redis.call('TIME')
local till = string.format('%.0f', time[1] * 1000000 + time[2] + ARGV[1])
local said = {till}
for i = 3, #ARGV do
  local there = redis.call('ZREM', KEYS[1], ARGV[i]) == 1
  if there or ARGV[2] == 'NX' then
    redis.call('ZADD', KEYS[1], till, ARGV[i])
    said[#said + 1] = ARGV[i]
  end
end
return said
