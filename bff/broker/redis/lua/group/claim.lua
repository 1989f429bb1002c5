-- KEYS q
-- ARGV lease (µs; 0: only look), most claims, interrupted (data), stopped (data), retention (ms), most bytes
-- → {'got', reaped, waited (µs), id, token, committed, user, content, size, fleeting, trace, handler, scope, key} · {'runs', until} · {'waits'} · {'idle', reaped}
-- Also the reaper: whoever looks after a lease's end finds what its worker left. `reaped` says so: 'ended <id>', or
-- 'again <id>' for what had not been begun, or was committed, and is claimed now; '' for nothing.
local now = clock()
local run = redis.call('HMGET', base .. 'run', 'id', 'until', 'said', 'stopping', 'committed')
local id, reaped = run[1], ''

if id then
  if tonumber(run[2]) > now then return {'runs', tonumber(run[2])} end
  if ARGV[1] == '0' then return {'waits'} end
  local claims = tonumber(redis.call('HGET', base .. 'm:' .. id, 'token'))
  redis.call('DEL', base .. 'run')
  if run[5] then stay_committed(id, run[3]) end
  if (not run[5] and (run[3] or run[4])) or claims >= tonumber(ARGV[2]) then
    finish(id, {'message', (run[4] and not run[3]) and ARGV[4] or ARGV[3]}, 1, 'reaped', ARGV[5], ARGV[6])
    reaped, id = 'ended ' .. id, nil
  else
    reaped = 'again ' .. id
  end
end
if not id then
  if ARGV[1] == '0' and redis.call('EXISTS', KEYS[1]) == 1 then return {'waits'} end
  id = redis.call('LPOP', KEYS[1])
  if not id then return {'idle', reaped} end
end

local m = base .. 'm:' .. id
local token = redis.call('HINCRBY', m, 'token', 1)
redis.call('HDEL', m, 'told')
redis.call('HSET', m, 'state', 'running')
redis.call('HSET', base .. 'run', 'id', id, 'token', token, 'until', digits(now + ARGV[1]))
tell_positions()
local left, committed = unpack(redis.call('HMGET', m, 'left', 'committed'))
if committed then redis.call('HSET', base .. 'run', 'committed', 1) end
local message = redis.call('HMGET', m, 'user', 'content', 'size', 'fleeting', 'trace', 'handler', 'scope', 'key')
for i = 1, 8 do message[i] = message[i] or '' end -- Those left by an earlier version have fewer.
return {'got', reaped, digits(now - left), id, token, committed or '', unpack(message)}
