-- KEYS chat:fleeting: sorted set, "<user> <message id>" of answers that are for their readers only, by when to stop them (µs)
-- ARGV grace (µs), 'XX' for those who are there already or 'NX' for a new one, member, …
local time = redis.call('TIME')
local till = string.format('%.0f', time[1] * 1000000 + time[2] + ARGV[1])
for i = 3, #ARGV do
  local there = redis.call('ZREM', KEYS[1], ARGV[i]) == 1
  if there or ARGV[2] == 'NX' then redis.call('ZADD', KEYS[1], till, ARGV[i]) end
end
