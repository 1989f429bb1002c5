-- KEYS q, run, old, hooks, hooksdue, m:<id>, l:<id>, r:<id>, and what `undeclared` asks for
-- ARGV id, user ('' for the sweep), process without readers ('' for the sweep), stopped (data), retention (ms), max bytes
-- → {'keys', …} · 'unknown' · 'expired' · 'read' (or not to be cancelled on disconnect) · the result of `stop`
local missing = undeclared()
if missing then return missing end
local id, m = ARGV[1], base .. 'm:' .. ARGV[1]
local state = ARGV[2] == '' and redis.call('HGET', m, 'state') or state_of(id, ARGV[2])
if not state then return 'unknown' end
if state == 'finished' then
  return redis.call('EXISTS', base .. 'l:' .. id) == 1 and 'finished' or 'expired'
end
if redis.call('HGET', m, 'fleeting') ~= '1' then return 'read' end
if ARGV[3] ~= '' then
  local readers = base .. 'r:' .. id
  redis.call('ZREM', readers, ARGV[3])
  redis.call('ZREMRANGEBYSCORE', readers, '-inf', digits(clock()))
  if redis.call('ZCARD', readers) > 0 then return 'read' end
end
return stop(id, state, 'unread', ARGV[4], ARGV[5], ARGV[6])
