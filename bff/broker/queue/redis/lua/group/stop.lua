-- KEYS q, run, old, hooks, hooksdue, m:<id>, l:<id>, and what `undeclared` asks for
-- ARGV id, user, stopped (data), retention (ms), max bytes
-- → {'keys', …} · 'unknown' · 'expired' · the result of `stop`
local missing = undeclared()
if missing then return missing end
local state = state_of(ARGV[1], ARGV[2])
if not state then return 'unknown' end
if state == 'finished' then
  return redis.call('EXISTS', base .. 'l:' .. ARGV[1]) == 1 and 'finished' or 'expired'
end
return stop(ARGV[1], state, 'stopped', ARGV[3], ARGV[4], ARGV[5])
