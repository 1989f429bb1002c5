-- KEYS q, run, old, and what `undeclared` asks for
-- → {'keys', …} · {whether the first message is running, whether it was asked to stop, id, scope, key, id, scope, key, …}, in order
local missing = undeclared()
if missing then return missing end
local running, stopping, over = unpack(redis.call('HMGET', base .. 'run', 'id', 'stopping', 'over'))
if over then running = nil end
local result = {running and 1 or 0, stopping and 1 or 0}
local function add(id)
  local m = redis.call('HMGET', base .. 'm:' .. id, 'scope', 'key')
  result[#result + 1], result[#result + 2], result[#result + 3] = id, m[1] or '', m[2] or ''
end
if running then add(running) end
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do add(id) end
return result
