-- KEYS r:<id> (see group.lua)
-- ARGV process, deadline (µs since 1970), time to live (ms)
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
