-- KEYS due
-- ARGV group, the moment claim_due.lua returned, when to check again (µs since 1970; '' for never)
-- Does nothing if the group was scheduled in the meantime.
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return end
redis.call('ZREM', KEYS[1], ARGV[1])
if ARGV[3] ~= '' then redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1]) end
