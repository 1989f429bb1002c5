-- KEYS m:<id>, l:<id> (see group.lua), w to write something, for which a replica can be awaited
-- ARGV start of the range, maximum number of entries
-- → {state, user, entries}: of one moment, also while the slot moves to another node
if KEYS[3] then redis.call('SET', KEYS[3], '', 'PX', 1000) end
local message = redis.call('HMGET', KEYS[1], 'state', 'user')
return {message[1], message[2], redis.call('XRANGE', KEYS[2], ARGV[1], '+', 'COUNT', ARGV[2])}
