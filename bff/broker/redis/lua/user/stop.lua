-- KEYS q
-- ARGV id, stopped (data), retention (ms), most bytes
-- → 'unknown' · 'expired' · 'finished' · 'running' · 'waiting' (it ended at once) · 'last' (likewise, and nothing is left to do)
local m = user .. 'm:' .. ARGV[1]
local state = redis.call('HGET', m, 'state')
if not state then return 'unknown' end
if state == 'finished' then
  return redis.call('EXISTS', user .. 'l:' .. ARGV[1]) == 1 and 'finished' or 'expired'
end
if state == 'running' then
  redis.call('HDEL', user .. 'run', 'stopping') -- See due/take.lua.
  redis.call('HSET', user .. 'run', 'stopping', 1)
  redis.call('PUBLISH', 'chat:stop', ARGV[1])
  return 'running'
end
redis.call('LREM', KEYS[1], 1, ARGV[1])
finish(ARGV[1], {'message', ARGV[2]}, 1, 'stopped', ARGV[3], ARGV[4])
tell_positions()
return redis.call('EXISTS', KEYS[1], user .. 'run') == 0 and 'last' or 'waiting'
