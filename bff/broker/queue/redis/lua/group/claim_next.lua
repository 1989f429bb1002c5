-- KEYS q, run, old, and what `undeclared` asks for
-- ARGV lease (µs), handler, nonce
-- → {'keys', …} · the result of `describe_claim` · {} if a message is running, none is waiting, or the next one has another handler
local missing = undeclared()
if missing then return missing end
local id = redis.call('LINDEX', KEYS[1], 0)
if not id or redis.call('EXISTS', base .. 'run') == 1 then return {} end
if redis.call('HGET', base .. 'm:' .. id, 'handler') ~= ARGV[2] then return {} end
redis.call('LPOP', KEYS[1])
return {claim(id, ARGV[1], ARGV[3])}
