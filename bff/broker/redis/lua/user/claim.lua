-- KEYS q
-- ARGV lease (µs; 0: only look), most claims, interrupted (data), stopped (data), retention (ms), most bytes
-- → {'got', id, token, user, content, size, fleeting} · {'runs', until} · {'waits'} · {'idle'}
-- Also the reaper: whoever looks after a lease's end finds what its worker left.
local now = clock()
local run = redis.call('HMGET', user .. 'run', 'id', 'until', 'said', 'stopping')
local id = run[1]

if id then
  if tonumber(run[2]) > now then return {'runs', tonumber(run[2])} end
  if ARGV[1] == '0' then return {'waits'} end
  local claims = tonumber(redis.call('HGET', user .. 'm:' .. id, 'token'))
  redis.call('DEL', user .. 'run')
  if run[3] or run[4] or claims >= tonumber(ARGV[2]) then
    finish(id, {'message', (run[4] and not run[3]) and ARGV[4] or ARGV[3]}, 1, 'reaped', ARGV[5], ARGV[6])
    id = nil
  end
end
if not id then
  if ARGV[1] == '0' and redis.call('EXISTS', KEYS[1]) == 1 then return {'waits'} end
  id = redis.call('LPOP', KEYS[1])
  if not id then return {'idle'} end
end

local m = user .. 'm:' .. id
local token = redis.call('HINCRBY', m, 'token', 1)
redis.call('HDEL', m, 'told')
redis.call('HSET', m, 'state', 'running')
redis.call('HSET', user .. 'run', 'id', id, 'token', token, 'until', digits(now + ARGV[1]))
tell_positions()
local message = redis.call('HMGET', m, 'user', 'content', 'size', 'fleeting')
return {'got', id, token, message[1], message[2], message[3], message[4]}
