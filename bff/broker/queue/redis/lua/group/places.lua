-- KEYS q
-- → {whether the first one runs, whether that was told to stop, id, scope, key, id, scope, key, …} of the messages that run or wait, in order
local running, stopping, over = unpack(redis.call('HMGET', base .. 'run', 'id', 'stopping', 'over'))
if over then running = nil end
local said = {running and 1 or 0, stopping and 1 or 0}
local function say(id)
  local m = redis.call('HMGET', base .. 'm:' .. id, 'scope', 'key')
  said[#said + 1], said[#said + 2], said[#said + 3] = id, m[1] or '', m[2] or ''
end
if running then say(running) end
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do say(id) end
return said
