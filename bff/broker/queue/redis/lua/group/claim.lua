-- KEYS q, run, old, hooks, hooksdue, and what `undeclared` asks for
-- ARGV lease (µs; 0: only check), max claims, interrupted (data), stopped (data), retention (ms), max bytes, nonce
-- → {'keys', …} · {'claimed', has deliveries (1, 0), reaped, the result of `describe_claim`} · {'running', has deliveries, the lease's
--   end} · {'waiting', has deliveries} · {'idle', has deliveries, reaped}
-- Also reaps: a run whose lease has ended lost its worker. `reaped` tells what became of the message: 'ended <id>', or
-- 'again <id>' if output had not started, it may restart, or it was committed, and it is claimed now; '' if there was none.
local missing = undeclared()
if missing then return missing end
local now = clock()
local run = base .. 'run'
local id, lease_end, started, stopping, committed, over, token = unpack(redis.call('HMGET', run, 'id', 'until', 'said', 'stopping', 'committed', 'over', 'token'))
local reaped = ''

local function has_deliveries()
  return redis.call('EXISTS', base .. 'hooksdue')
end

if id then
  if ARGV[7] ~= '' and string.sub(token, -#ARGV[7]) == ARGV[7] then return {'claimed', has_deliveries(), '', describe_claim(id)} end -- A repeated call.
  if tonumber(lease_end) > now then return {'running', has_deliveries(), tonumber(lease_end)} end
  if ARGV[1] == '0' then return {'waiting', has_deliveries()} end
  local claims = tonumber(redis.call('HGET', base .. 'm:' .. id, 'token'))
  redis.call('DEL', run)
  if committed and not over then keep_committed(id, started) end
  if over then
    id = nil
  elseif claims >= tonumber(ARGV[2]) or (not committed and (stopping or (started and not try_restart(id)))) then
    finish(id, {'message', (stopping and not started) and ARGV[4] or ARGV[3]}, 1, 'reaped', ARGV[5], ARGV[6])
    reaped, id = 'ended ' .. id, nil
  else
    reaped = 'again ' .. id
  end
end
if not id then
  if ARGV[1] == '0' and redis.call('EXISTS', KEYS[1]) == 1 then return {'waiting', has_deliveries()} end
  id = redis.call('LPOP', KEYS[1])
  if not id then return {'idle', has_deliveries(), reaped} end
end
return {'claimed', has_deliveries(), reaped, claim(id, ARGV[1], ARGV[7])}
