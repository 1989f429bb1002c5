-- KEYS chat:due: sorted set, every user of whom something waits or runs, by when to look after them (µs since 1970)
-- ARGV user, in how long (µs; 0: now, which those who wait for work are told)
-- The moment changes in any case: whoever looked before has not seen what this is about, and must not settle: see settle.lua.
local time = redis.call('TIME')
local moment = time[1] * 1000000 + time[2] + ARGV[2]
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], string.format('%.0f', known and math.min(moment, known - 1) or moment), ARGV[1])
if ARGV[2] == '0' then redis.call('PUBLISH', 'chat:work', '') end
