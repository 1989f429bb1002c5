-- KEYS chat:due (see schedule.lua)
-- ARGV delay (µs) until others may check the group, [group: claims this one, due or not]
-- → {group, its new moment} · {'', µs until the next group is due, -1 if there is none}
-- The new moment identifies this check: see complete.lua. When Redis is out of memory, it refuses a script at its first write,
-- unless that is a deletion, and then runs the script to its end. So scripts that have to work without memory delete a member
-- before they add it.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local first = ARGV[2] and {ARGV[2], redis.call('ZSCORE', KEYS[1], ARGV[2]) and 0} or redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if not first[2] then return {'', -1} end
if tonumber(first[2]) > now then return {'', first[2] - now} end
local moment = string.format('%.0f', now + ARGV[1])
redis.call('ZREM', KEYS[1], first[1])
redis.call('ZADD', KEYS[1], moment, first[1])
return {first[1], moment}
