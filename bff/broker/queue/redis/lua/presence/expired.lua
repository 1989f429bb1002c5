-- KEYS <prefix>:{<part>}:fleeting (see extend.lua)
-- ARGV maximum number
-- → the members whose deadline has passed
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
