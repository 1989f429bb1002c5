-- KEYS q
-- ARGV id, token, lease (µs), name, whether this is output (1, 0), max bytes, event type, data, …
-- → 'done' · 'stopped', 'unread' (only without entries: why it has to stop) · 'lost' · 'large'
-- Renews the lease. Without entries it does only that, also when Redis is out of memory: see schedule/claim_due.lua.
if not holds_lease(ARGV[1], ARGV[2]) then return 'lost' end
local run = base .. 'run'
local renews_only = #ARGV == 6
if renews_only then redis.call('HDEL', run, 'until') end
redis.call('HSET', run, 'until', digits(clock() + ARGV[3]))
if renews_only then return redis.call('HGET', run, 'stopping') or 'done' end
if redis.call('HGET', run, 'wrote') == ARGV[4] then return 'done' end

local bytes = tonumber(redis.call('HGET', base .. 'm:' .. ARGV[1], 'bytes') or 0)
for i = 8, #ARGV, 2 do bytes = bytes + EVENT_BYTES + #ARGV[i] end
if bytes > tonumber(ARGV[6]) then return 'large' end
redis.call('HSET', run, 'wrote', ARGV[4])
if ARGV[5] == '1' then redis.call('HSET', run, 'said', 1) end
write(ARGV[1], ARGV, 7)
return 'done'
