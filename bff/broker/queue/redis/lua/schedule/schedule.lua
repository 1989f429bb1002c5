-- KEYS chat:due: sorted set of the groups with waiting or running messages, by when to check them (µs since 1970)
-- ARGV group, delay (µs; 0: now, of which waiting workers are notified)
-- Always changes the score, if only by 1 µs: a check that began earlier has not seen this change, and its `complete` must not
-- take effect.
local time = redis.call('TIME')
local moment = time[1] * 1000000 + time[2] + ARGV[2]
local current = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], string.format('%.0f', current and math.min(moment, current - 1) or moment), ARGV[1])
if ARGV[2] == '0' then redis.call('PUBLISH', 'chat:work', '') end
