-- KEYS q
-- ARGV lease (µs), handler
-- → what `claim` gives · {} if something runs, nothing waits, or the next message is another handler's
local id = redis.call('LINDEX', KEYS[1], 0)
if not id or redis.call('EXISTS', base .. 'run') == 1 then return {} end
if redis.call('HGET', base .. 'm:' .. id, 'handler') ~= ARGV[2] then return {} end
redis.call('LPOP', KEYS[1])
return {claim(id, ARGV[1])}
