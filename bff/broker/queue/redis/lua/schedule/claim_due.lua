-- KEYS due
-- ARGV delay (µs) until others may check the group, [group: claims this one, due or not]
-- → {group, its new moment, the result of `first`} · {'', now, the result of `first`} if none is due
-- The new moment identifies this check: see complete.lua. When Redis is out of memory, it refuses a script at its first write,
-- unless that is a deletion, and then runs the script to its end. So scripts that have to work without memory delete a member
-- before they add it.
local now = clock()
local next = ARGV[2] and {ARGV[2], redis.call('ZSCORE', KEYS[1], ARGV[2]) and 0} or redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if not next[2] or tonumber(next[2]) > now then return {'', digits(now), first()} end
local moment = digits(now + ARGV[1])
redis.call('ZREM', KEYS[1], next[1])
redis.call('ZADD', KEYS[1], moment, next[1])
return {next[1], moment, first()}
