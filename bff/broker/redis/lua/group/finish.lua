-- KEYS q
-- ARGV id, token, name, retention (ms), most bytes, event, data, …
-- → 'lost', or how many wait
if not holds(ARGV[1], ARGV[2]) then
  local m = redis.call('HMGET', base .. 'm:' .. ARGV[1], 'token', 'ended')
  local repeated = m[1] == ARGV[2] and m[2] == ARGV[3]
  return repeated and redis.call('LLEN', KEYS[1]) or 'lost'
end
redis.call('DEL', base .. 'run')
finish(ARGV[1], ARGV, 6, ARGV[3], ARGV[4], ARGV[5])
return redis.call('LLEN', KEYS[1])
