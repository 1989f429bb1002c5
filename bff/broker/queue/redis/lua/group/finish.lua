-- KEYS q
-- ARGV id, token, name, retention (ms), max bytes, mode, event type, data, …
--   mode: 'conclude': the message keeps running · 'forget': its client_message_id may be used again · ''
-- → 'lost' · the number of waiting messages
if not holds_lease(ARGV[1], ARGV[2]) then
  local m = redis.call('HMGET', base .. 'm:' .. ARGV[1], 'token', 'ended')
  local repeated = m[1] == ARGV[2] and m[2] == ARGV[3]
  return repeated and redis.call('LLEN', KEYS[1]) or 'lost'
end
local m, run = base .. 'm:' .. ARGV[1], base .. 'run'
if redis.call('HEXISTS', run, 'over') == 1 then
  if ARGV[6] ~= 'conclude' then
    redis.call('DEL', run)
    redis.call('HSET', m, 'ended', ARGV[3])
  end
  return redis.call('LLEN', KEYS[1])
end
local client = redis.call('HGET', m, 'client')
if client and ARGV[6] == 'forget' then redis.call('DEL', client) end
if ARGV[6] == 'conclude' then
  redis.call('HDEL', run, 'stopping')
  redis.call('HSET', run, 'over', 1)
else
  redis.call('DEL', run)
end
finish(ARGV[1], ARGV, 7, ARGV[3], ARGV[4], ARGV[5])
return redis.call('LLEN', KEYS[1])
