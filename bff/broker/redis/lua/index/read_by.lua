-- KEYS chat:fleeting: sorted set, "<user> <message id>" of answers that are for their readers only, by when to stop them (µs)
-- ARGV grace (µs), 'XX' for those who are there already or 'NX' for a new one, member, …
-- → how many there are
local time = redis.call('TIME')
local till = string.format('%.0f', time[1] * 1000000 + time[2] + ARGV[1])
if ARGV[2] == 'XX' and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], ARGV[2], till, ARGV[i]) end
return redis.call('ZCARD', KEYS[1])
