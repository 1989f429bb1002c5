-- KEYS <prefix>:{<user>}:streams: sorted set, the user's open streams in all processes, score: when each expires (ms); expires
-- ARGV limit, time to live without a renewal (ms), stream id
-- → 1, or 0 if the limit is reached
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
