-- KEYS chat:fleeting (see read_by.lua)
-- ARGV most
-- → those whose last reader left a grace ago
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
