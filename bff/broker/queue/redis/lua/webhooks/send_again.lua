-- KEYS hooks, hooksdue
-- ARGV id
-- → whether it is known (1, 0). If so, it is due now, as a new one is.
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[1], 's:' .. ARGV[1])
redis.call('ZADD', KEYS[2], digits(clock()), ARGV[1])
return 1
