-- KEYS q, run, old, hooks, hooksdue, m:<id>, l:<id>, and what `undeclared` asks for
-- ARGV id, token, name, the name of the claim's previous write or '', retention (ms), max bytes, mode, event type, data, …
--   mode: 'conclude': the message keeps running · 'forget': its client_message_id may be used again, and its end is not
--   delivered to webhooks · ''
-- → {'keys', …} · 'lost' · 'gap <the last known write>' · the number of waiting messages
local m, run = base .. 'm:' .. ARGV[1], base .. 'run'
local client = redis.call('HGET', m, 'client')
local missing = undeclared({client or nil})
if missing then return missing end
if not holds_lease(ARGV[1], ARGV[2]) then
  return redis.call('HGET', m, 'ended') == ARGV[3] and redis.call('LLEN', KEYS[1]) or 'lost'
end
if redis.call('HEXISTS', run, 'over') == 1 then
  if ARGV[7] ~= 'conclude' then
    redis.call('DEL', run)
    redis.call('HSET', m, 'ended', ARGV[3])
  end
  return redis.call('LLEN', KEYS[1])
end
local wrote = redis.call('HGET', run, 'wrote')
if has_gap(wrote, ARGV[4]) then return 'gap ' .. (wrote or '') end
if client and ARGV[7] == 'forget' then redis.call('DEL', client) end
if ARGV[7] == 'forget' then redis.call('HDEL', m, 'webhook') end
if ARGV[7] == 'conclude' then
  redis.call('HDEL', run, 'stopping')
  redis.call('HSET', run, 'over', 1, 'wrote', ARGV[3])
else
  redis.call('DEL', run)
end
finish(ARGV[1], ARGV, 8, ARGV[3], ARGV[5], ARGV[6])
return redis.call('LLEN', KEYS[1])
