-- KEYS run, m:<id>, l:<id>
-- ARGV id, token, lease (µs), name, the name of the claim's previous write or '', whether this is output (1, 0), max bytes,
--   event type, data, …
-- → 'done' · 'stopped', 'unread' (only without entries: why it has to stop) · 'lost' · 'large' · 'gap <the last known write>'
-- Renews the lease. Without entries it does only that, also when Redis is out of memory: see schedule/claim_due.lua.
if not holds_lease(ARGV[1], ARGV[2]) then return 'lost' end
local run = base .. 'run'
local renews_only = #ARGV == 7
if renews_only then redis.call('HDEL', run, 'until') end
redis.call('HSET', run, 'until', digits(clock() + ARGV[3]))
if renews_only then return redis.call('HGET', run, 'stopping') or 'done' end
local wrote = redis.call('HGET', run, 'wrote')
if wrote == ARGV[4] then return 'done' end
if has_gap(wrote, ARGV[5]) then return 'gap ' .. (wrote or '') end

local bytes = tonumber(redis.call('HGET', base .. 'm:' .. ARGV[1], 'bytes') or 0)
for i = 9, #ARGV, 2 do bytes = bytes + EVENT_BYTES + #ARGV[i] end
if bytes > tonumber(ARGV[7]) then return 'large' end
redis.call('HSET', run, 'wrote', ARGV[4])
if ARGV[6] == '1' then redis.call('HSET', run, 'said', 1) end
write(ARGV[1], ARGV, 8)
return 'done'
