-- KEYS run, m:<id>, l:<id>
-- ARGV id, token, name
-- → 'lost' · whether the reply restarts (1, 0)
-- For a committed claim. If that mark is gone, this is a repeated call: it has taken effect already.
if not holds_lease(ARGV[1], ARGV[2]) then return 'lost' end
local run = base .. 'run'
redis.call('HSET', run, 'wrote', ARGV[3])
if redis.call('HEXISTS', run, 'committed') == 0 then return 1 end
if not try_restart(ARGV[1]) then return 0 end
redis.call('HDEL', run, 'committed', 'said')
redis.call('HDEL', base .. 'm:' .. ARGV[1], 'committed')
return 1
