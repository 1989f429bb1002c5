-- KEYS <prefix>:{<user>}:streams (see acquire_stream.lua)
-- ARGV time to live (ms), stream id, …
local time = redis.call('TIME')
local expires_at = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], expires_at, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
