-- KEYS chat:{<user>}:minute: sorted set, the user's messages of the last minute, by when each is over (µs); expires
-- ARGV most, message
-- → 0, or the µs until there is room
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then
  return redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] - now
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + 60000000), ARGV[2])
redis.call('PEXPIRE', KEYS[1], 60000)
return 0
