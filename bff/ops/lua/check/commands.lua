-- KEYS five keys of one slot, which this script uses and deletes
-- ARGV a channel
-- Runs each command of the other scripts once, and ZCOUNT, so that an ACL that lacks one is noticed before a message needs it.
-- → 1, or the first error with its command in brackets
local text, hash, list, set, stream = unpack(KEYS)
local calls = {
  {'TIME'}, {'PUBLISH', ARGV[1], ''}, SHARDED and {'SPUBLISH', ARGV[1], ''} or {'TIME'},
  {'SET', text, '1', 'PX', 60000}, {'GET', text}, {'EXISTS', text}, {'PEXPIRE', text, 60000},
  {'HSET', hash, 'a', '1'}, {'HSETNX', hash, 'b', '1'}, {'HINCRBY', hash, 'a', 1}, {'HGET', hash, 'a'},
  {'HMGET', hash, 'a', 'b'}, {'HEXISTS', hash, 'a'}, {'HDEL', hash, 'b'},
  {'RPUSH', list, '1'}, {'LPUSH', list, '2'}, {'LLEN', list}, {'LINDEX', list, 0}, {'LPOS', list, '1'},
  {'LRANGE', list, 0, -1}, {'LREM', list, 1, '1'}, {'LTRIM', list, 0, 0}, {'LPOP', list},
  {'ZADD', set, 1, 'a'}, {'ZCARD', set}, {'ZCOUNT', set, 0, 1}, {'ZRANGE', set, 0, 0}, {'ZSCORE', set, 'a'},
  {'ZRANGEBYSCORE', set, 0, 1}, {'ZREMRANGEBYSCORE', set, 2, 3}, {'ZREM', set, 'a'},
  {'XADD', stream, '*', 'a', '1'}, {'XRANGE', stream, '-', '+'},
  {'DEL', text, hash, list, set, stream},
}
for _, call in ipairs(calls) do
  local result = redis.pcall(unpack(call))
  if type(result) == 'table' and result.err then
    redis.pcall('DEL', text, hash, list, set, stream)
    return redis.error_reply(result.err .. ' [' .. call[1] .. ']')
  end
end
return 1
