-- KEYS <prefix>:{<user>}:streams (see acquire_stream.lua)
-- ARGV stream id
redis.call('ZREM', KEYS[1], ARGV[1])
