-- KEYS q
-- ARGV id, token, interrupted (data), stopped (data), retention (ms), most bytes
-- → 'lost', or how many wait
-- Hands a claim back. What has said something ends, unless it may begin anew or was committed.
if not holds(ARGV[1], ARGV[2]) then return 'lost' end
local run = redis.call('HMGET', base .. 'run', 'said', 'stopping', 'committed', 'over')
redis.call('DEL', base .. 'run')
if run[4] then return redis.call('LLEN', KEYS[1]) end
if run[3] then stay_committed(ARGV[1], run[1]) end
if not run[3] and (run[2] or (run[1] and not restarts(ARGV[1]))) then
  finish(ARGV[1], {'message', run[1] and ARGV[3] or ARGV[4]}, 1, 'released', ARGV[5], ARGV[6])
else
  redis.call('HSET', base .. 'm:' .. ARGV[1], 'state', 'queued')
  redis.call('LPUSH', KEYS[1], ARGV[1])
  tell_positions()
end
return redis.call('LLEN', KEYS[1])
