-- KEYS chat:due (see offer.lua)
-- ARGV for how long nobody else shall look (µs), [user]
-- → {user, the moment it is taken until} · {'', µs until somebody is due, -1 if nobody is}
-- The moment is this look's own: see settle.lua. Removed before it is added, as in all scripts here that Redis shall let
-- come to their end even when it has no memory left: it refuses the first write of a script only, and no deletion.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local first = ARGV[2] and {ARGV[2], redis.call('ZSCORE', KEYS[1], ARGV[2]) and 0} or redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if not first[2] then return {'', -1} end
if tonumber(first[2]) > now then return {'', first[2] - now} end
local till = now + ARGV[1]
redis.call('ZREM', KEYS[1], first[1])
redis.call('ZADD', KEYS[1], string.format('%.0f', till), first[1])
return {first[1], string.format('%.0f', till)}
