-- KEYS chat:due: sorted set, every user of whom something waits or runs, by when to look after them (µs since 1970)
-- ARGV user
redis.call('ZADD', KEYS[1], 'LT', string.format('%.0f', redis.call('TIME')[1] * 1000000 + redis.call('TIME')[2]), ARGV[1])
redis.call('PUBLISH', 'chat:work', '')
