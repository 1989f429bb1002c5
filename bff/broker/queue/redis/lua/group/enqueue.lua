-- KEYS q, [c:<key>]
-- ARGV id, user, content, size, fleeting, digest, depth, on_busy, trace, handler, scope, key, lease (µs; 0: not to be claimed), repeatable
-- → {'kept', ahead, whether the group is free} · {'claimed', what `claim` gives} · {'again', id, ahead} (also where a run is joined) · {'expired', id} · {'conflict'} · {'busy'} · {'many'}
local id, m = ARGV[1], base .. 'm:' .. ARGV[1]

local function ahead(of)
  local place = redis.call('LPOS', KEYS[1], of)
  return place and place + redis.call('EXISTS', base .. 'run') or 0
end

if KEYS[2] then
  local known = redis.call('GET', KEYS[2])
  if known then
    local its, digest = string.match(known, '^(.*) (.*)$')
    if digest ~= ARGV[6] then return {'conflict'} end
    local state = redis.call('HGET', base .. 'm:' .. its, 'state')
    if not state or (state == 'finished' and redis.call('EXISTS', base .. 'l:' .. its) == 0) then return {'expired', its} end
    return {'again', its, ahead(its)}
  end
end

if ARGV[11] ~= '' then
  local active = redis.call('LRANGE', KEYS[1], 0, -1)
  local runs = redis.call('HMGET', base .. 'run', 'id', 'stopping')
  if not runs[2] then active[#active + 1] = runs[1] or nil end -- One that was told to stop is as good as over.
  local busy = false
  for _, other in ipairs(active) do
    local run = redis.call('HMGET', base .. 'm:' .. other, 'scope', 'key')
    if run[1] == ARGV[11] then
      if run[2] == ARGV[12] then return {'again', other, ahead(other)} end
      busy = true
    end
  end
  if busy then return {'busy'} end
end

local waiting, running = redis.call('LLEN', KEYS[1]), redis.call('EXISTS', base .. 'run')
local over = redis.call('HEXISTS', base .. 'run', 'over') == 1
if ARGV[8] == 'reject' and waiting + (over and 0 or running) > 0 then return {'busy'} end
if waiting >= tonumber(ARGV[7]) then return {'many'} end

redis.call('HSET', m, 'state', 'queued', 'user', ARGV[2], 'content', ARGV[3], 'size', ARGV[4], 'fleeting', ARGV[5])
redis.call('HSET', m, 'trace', ARGV[9], 'left', digits(clock()), 'handler', ARGV[10], 'scope', ARGV[11], 'key', ARGV[12])
redis.call('HSET', m, 'repeatable', ARGV[14])
if KEYS[2] then
  redis.call('SET', KEYS[2], id .. ' ' .. ARGV[6], 'PX', REMEMBER_MS)
  redis.call('HSET', m, 'client', KEYS[2])
end
if ARGV[8] == 'interrupt' and running == 1 then
  if not over then stop(redis.call('HGET', base .. 'run', 'id'), 'running', 'stopped') end
  redis.call('LPUSH', KEYS[1], id)
else
  redis.call('RPUSH', KEYS[1], id)
end
tell_positions()
if ARGV[13] ~= '0' and waiting + running == 0 then
  redis.call('LPOP', KEYS[1])
  return {'claimed', claim(id, ARGV[13])}
end
return {'kept', ahead(id), 1 - running}
