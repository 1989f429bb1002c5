-- KEYS run
-- ARGV id, token
-- → 'lost' · whether the reply may be stored (1, 0)
if not holds_lease(ARGV[1], ARGV[2]) then return 'lost' end
local run = base .. 'run'
if redis.call('HEXISTS', run, 'stopping') == 1 then return 0 end
redis.call('HDEL', run, 'committed') -- See schedule/claim_due.lua.
redis.call('HSET', run, 'committed', 1)
return 1
