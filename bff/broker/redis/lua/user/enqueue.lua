-- KEYS q, [c:<key>]
-- ARGV id, user, content, size, fleeting, digest, depth, on_busy, trace
-- → {'kept', ahead, whether the user is free} · {'again', id, ahead} · {'expired', id} · {'conflict'} · {'busy'} · {'many'}
local id, m = ARGV[1], user .. 'm:' .. ARGV[1]

local function ahead(of)
  local place = redis.call('LPOS', KEYS[1], of)
  return place and place + redis.call('EXISTS', user .. 'run') or 0
end

if KEYS[2] then
  local known = redis.call('GET', KEYS[2])
  if known then
    local its, digest = string.match(known, '^(.*) (.*)$')
    if digest ~= ARGV[6] then return {'conflict'} end
    local state = redis.call('HGET', user .. 'm:' .. its, 'state')
    if not state or (state == 'finished' and redis.call('EXISTS', user .. 'l:' .. its) == 0) then return {'expired', its} end
    return {'again', its, ahead(its)}
  end
end

local waiting, running = redis.call('LLEN', KEYS[1]), redis.call('EXISTS', user .. 'run')
if ARGV[8] == 'reject' and waiting + running > 0 then return {'busy'} end
if waiting >= tonumber(ARGV[7]) then return {'many'} end

redis.call('HSET', m, 'state', 'queued', 'user', ARGV[2], 'content', ARGV[3], 'size', ARGV[4], 'fleeting', ARGV[5])
redis.call('HSET', m, 'trace', ARGV[9], 'left', digits(clock()))
if KEYS[2] then redis.call('SET', KEYS[2], id .. ' ' .. ARGV[6], 'PX', REMEMBER_MS) end
if ARGV[8] == 'interrupt' and running == 1 then
  redis.call('HSET', user .. 'run', 'stopping', 1)
  redis.call('PUBLISH', 'chat:stop', redis.call('HGET', user .. 'run', 'id'))
  redis.call('LPUSH', KEYS[1], id)
else
  redis.call('RPUSH', KEYS[1], id)
end
tell_positions()
return {'kept', ahead(id), 1 - running}
