-- KEYS chat:due (see offer.lua)
-- ARGV user, the moment it was taken until, when to look again (µs since 1970; '' for never)
-- Does nothing if somebody was there in between: then there is something new to see.
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return end
redis.call('ZREM', KEYS[1], ARGV[1])
if ARGV[3] ~= '' then redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1]) end
