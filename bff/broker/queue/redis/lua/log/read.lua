-- KEYS m:<id>, l:<id> (see group.lua)
-- ARGV start of the range, maximum number of entries
-- → {state, user, entries}: of one moment, also while the slot moves to another node
local message = redis.call('HMGET', KEYS[1], 'state', 'user')
return {message[1], message[2], redis.call('XRANGE', KEYS[2], ARGV[1], '+', 'COUNT', ARGV[2])}
