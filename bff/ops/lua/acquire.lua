-- KEYS <prefix>:{<user>}:minute: sorted set, the user's messages of the last minute; score: when each leaves the window (µs); expires
-- ARGV limit, message id
-- → 0, or the time until the oldest message leaves the window (µs)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then
  return redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] - now
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + 60000000), ARGV[2])
redis.call('PEXPIRE', KEYS[1], 60000)
return 0
