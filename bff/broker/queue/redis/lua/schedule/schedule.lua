-- KEYS due
-- ARGV group, delay (µs; 0: now, of which waiting workers are notified)
-- Always changes the score, if only by 1 µs: a check that began earlier has not seen this change, and its `complete` must not
-- take effect. Channels: <prefix>:work (the part); where SHARDED, <prefix>:{<part>}:work.
local moment = clock() + ARGV[2]
local current = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], digits(current and math.min(moment, current - 1) or moment), ARGV[1])
if ARGV[2] ~= '0' then return end
if SHARDED then redis.call('SPUBLISH', base .. 'work', '') else redis.call('PUBLISH', prefix .. 'work', part) end
