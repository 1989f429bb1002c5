-- KEYS q
-- ARGV id, user, stopped (data), retention (ms), max bytes
-- → 'unknown' · 'expired' · the result of `stop`
local state = state_of(ARGV[1], ARGV[2])
if not state then return 'unknown' end
if state == 'finished' then
  return redis.call('EXISTS', base .. 'l:' .. ARGV[1]) == 1 and 'finished' or 'expired'
end
return stop(ARGV[1], state, 'stopped', ARGV[3], ARGV[4], ARGV[5])
