-- KEYS chat:fleeting (see read_by.lua)
-- ARGV most
-- → those whose last reader left a grace ago; they are told once
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
if #found > 0 then redis.call('ZREM', KEYS[1], unpack(found)) end
return found
