-- KEYS q
-- ARGV id, token, lease (µs), name, whether this is the answer itself, most bytes, event, data, …
-- → 'done' · 'stopped', 'unread' (there were no words, and why it shall stop) · 'lost' · 'large'
-- Renews the lease too; without words it does nothing else, and that even when Redis has no memory left: see due/take.lua.
if not holds(ARGV[1], ARGV[2]) then return 'lost' end
local run = base .. 'run'
local alone = #ARGV == 6
if alone then redis.call('HDEL', run, 'until') end
redis.call('HSET', run, 'until', digits(clock() + ARGV[3]))
if alone then return redis.call('HGET', run, 'stopping') or 'done' end
if redis.call('HGET', run, 'wrote') == ARGV[4] then return 'done' end

local bytes = tonumber(redis.call('HGET', base .. 'm:' .. ARGV[1], 'bytes') or 0)
for i = 8, #ARGV, 2 do bytes = bytes + EVENT_BYTES + #ARGV[i] end
if bytes > tonumber(ARGV[6]) then return 'large' end
redis.call('HSET', run, 'wrote', ARGV[4])
if ARGV[5] == '1' then redis.call('HSET', run, 'said', 1) end
write(ARGV[1], ARGV, 7)
return 'done'
