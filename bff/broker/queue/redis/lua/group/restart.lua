-- KEYS q
-- ARGV id, token
-- → 'lost' · whether the answer begins anew (1, 0)
-- Of a claim that was committed when it was begun. Without the mark of that it is done already: it is repeated.
if not holds(ARGV[1], ARGV[2]) then return 'lost' end
local run = base .. 'run'
if redis.call('HEXISTS', run, 'committed') == 0 then return 1 end
if not restarts(ARGV[1]) then return 0 end
redis.call('HDEL', run, 'committed', 'said')
redis.call('HDEL', base .. 'm:' .. ARGV[1], 'committed')
return 1
