-- KEYS q, run, old, and what `undeclared` asks for
-- ARGV event id
-- → {'keys', …} · the id of the running, waiting or finished message whose log holds that event; '' for none
local missing = undeclared()
if missing then return missing end

local function holds_event(id)
  return #redis.call('XRANGE', base .. 'l:' .. id, ARGV[1], ARGV[1], 'COUNT', 1) > 0
end

local running = redis.call('HGET', base .. 'run', 'id')
if running and holds_event(running) then return running end
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if holds_event(id) then return id end
end
local old = redis.call('LRANGE', base .. 'old', 0, -1)
for i = #old, 1, -1 do
  local id = string.match(old[i], '([^ ]*)$')
  if holds_event(id) then return id end
end
return ''
