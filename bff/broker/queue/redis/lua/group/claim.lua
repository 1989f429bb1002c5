-- KEYS q
-- ARGV lease (µs; 0: only look), most claims, interrupted (data), stopped (data), retention (ms), most bytes
-- → {'got', reaped, what `claim` gives} · {'runs', until} · {'waits'} · {'idle', reaped}
-- Also the reaper: whoever looks after a lease's end finds what its worker left. `reaped` says so: 'ended <id>', or
-- 'again <id>' for what had not been begun, may be begun anew, or was committed, and is claimed now; '' for nothing.
local now = clock()
local run = redis.call('HMGET', base .. 'run', 'id', 'until', 'said', 'stopping', 'committed', 'over')
local id, reaped = run[1], ''

if id then
  if tonumber(run[2]) > now then return {'runs', tonumber(run[2])} end
  if ARGV[1] == '0' then return {'waits'} end
  local claims = tonumber(redis.call('HGET', base .. 'm:' .. id, 'token'))
  redis.call('DEL', base .. 'run')
  if run[5] and not run[6] then stay_committed(id, run[3]) end
  if run[6] then
    id = nil
  elseif claims >= tonumber(ARGV[2]) or (not run[5] and (run[4] or (run[3] and not restarts(id)))) then
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
return {'got', reaped, claim(id, ARGV[1])}
