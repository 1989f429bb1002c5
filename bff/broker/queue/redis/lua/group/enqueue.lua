-- KEYS q, run, old, m:<id>, l:<id>, c:<key> or q once more, and what `undeclared` asks for
-- ARGV id, user, content, size, fleeting, digest, depth, on_busy, trace, handler, scope, key, lease (µs; 0: do not claim), repeatable,
--   the claim's nonce, webhook
-- → {'keys', …} · {'queued', ahead, whether no message is running} · {'claimed', the result of `claim`} · {'exists', id, ahead} (or a run is
--   joined) · {'expired', id} · {'conflict'} · {'busy'} · {'full'}
local id, m, c = ARGV[1], base .. 'm:' .. ARGV[1], KEYS[6] ~= KEYS[1] and KEYS[6] or nil
local known = c and redis.call('GET', c)
local other, digest = string.match(known or '', '^(.*) (.*)$')
local missing = undeclared(other and {base .. 'm:' .. other, base .. 'l:' .. other})
if missing then return missing end

local function ahead_of(waiting)
  local index = redis.call('LPOS', KEYS[1], waiting)
  return index and index + redis.call('EXISTS', base .. 'run') or 0
end

if other then
  if digest ~= ARGV[6] then return {'conflict'} end
  local state = redis.call('HGET', base .. 'm:' .. other, 'state')
  if not state or (state == 'finished' and redis.call('EXISTS', base .. 'l:' .. other) == 0) then return {'expired', other} end
  return {'exists', other, ahead_of(other)}
end

if ARGV[11] ~= '' then
  local active = redis.call('LRANGE', KEYS[1], 0, -1)
  local running, stopping = unpack(redis.call('HMGET', base .. 'run', 'id', 'stopping'))
  if not stopping then active[#active + 1] = running or nil end -- A run that was asked to stop cannot be joined.
  local busy = false
  for _, run in ipairs(active) do
    local scope, key = unpack(redis.call('HMGET', base .. 'm:' .. run, 'scope', 'key'))
    if scope == ARGV[11] then
      if key == ARGV[12] then return {'exists', run, ahead_of(run)} end
      busy = true
    end
  end
  if busy then return {'busy'} end
end

local waiting, running = redis.call('LLEN', KEYS[1]), redis.call('EXISTS', base .. 'run')
local over = redis.call('HEXISTS', base .. 'run', 'over') == 1
if ARGV[8] == 'reject' and waiting + (over and 0 or running) > 0 then return {'busy'} end
if waiting >= tonumber(ARGV[7]) then return {'full'} end

redis.call('HSET', m, 'state', 'queued', 'user', ARGV[2], 'content', ARGV[3], 'size', ARGV[4], 'fleeting', ARGV[5])
redis.call('HSET', m, 'trace', ARGV[9], 'left', digits(clock()), 'handler', ARGV[10], 'scope', ARGV[11], 'key', ARGV[12])
redis.call('HSET', m, 'repeatable', ARGV[14], 'webhook', ARGV[16])
if c then
  redis.call('SET', c, id .. ' ' .. ARGV[6], 'PX', TTL_MS)
  redis.call('HSET', m, 'client', c)
end
if ARGV[8] == 'interrupt' and running == 1 then
  if not over then stop(redis.call('HGET', base .. 'run', 'id'), 'running', 'stopped') end
  redis.call('LPUSH', KEYS[1], id)
else
  redis.call('RPUSH', KEYS[1], id)
end
publish_positions()
if ARGV[13] ~= '0' and waiting + running == 0 then
  redis.call('LPOP', KEYS[1])
  return {'claimed', claim(id, ARGV[13], ARGV[15])}
end
return {'queued', ahead_of(id), 1 - running}
