-- KEYS m:<id>, l:<id>
-- ARGV id, user
-- → 'unknown' · 'expired' · 'done'
local id, m = ARGV[1], base .. 'm:' .. ARGV[1]
local state = state_of(id, ARGV[2])
if not state then return 'unknown' end
if state == 'finished' then return redis.call('EXISTS', base .. 'l:' .. id) == 1 and 'done' or 'expired' end
redis.call('HDEL', m, 'fleeting')
return 'done'
