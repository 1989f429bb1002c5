-- KEYS q, run, old, hooks, hooksdue, m:<id>, l:<id>, and what `undeclared` asks for
-- ARGV id, token, interrupted (data), stopped (data), retention (ms), max bytes
-- → {'keys', …} · 'lost' · the number of waiting messages
-- Gives a claim back. If output has started and was not committed, the message finishes, unless it may restart.
local missing = undeclared()
if missing then return missing end
if not holds_lease(ARGV[1], ARGV[2]) then return 'lost' end
local started, stopping, committed, over = unpack(redis.call('HMGET', base .. 'run', 'said', 'stopping', 'committed', 'over'))
redis.call('DEL', base .. 'run')
if over then return redis.call('LLEN', KEYS[1]) end
if committed then keep_committed(ARGV[1], started) end
if not committed and (stopping or (started and not try_restart(ARGV[1]))) then
  finish(ARGV[1], {'message', started and ARGV[3] or ARGV[4]}, 1, 'released', ARGV[5], ARGV[6])
else
  redis.call('HSET', base .. 'm:' .. ARGV[1], 'state', 'queued')
  redis.call('LPUSH', KEYS[1], ARGV[1])
  publish_positions()
end
return redis.call('LLEN', KEYS[1])
