-- KEYS due
-- ARGV group, which is scheduled for now unless it is scheduled already
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return end
redis.call('ZADD', KEYS[1], digits(clock()), ARGV[1])
if SHARDED then redis.call('SPUBLISH', base .. 'work', '') else redis.call('PUBLISH', prefix .. 'work', part) end
