-- KEYS chat:{<user>}:streams (see enter.lua)
-- ARGV stream id
redis.call('ZREM', KEYS[1], ARGV[1])
