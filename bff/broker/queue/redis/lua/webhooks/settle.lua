-- KEYS hooks, hooksdue
-- ARGV id, token, outcome, delay (µs), error
--   outcome: 'done' · 'waiting': try again after the delay · 'failed': delete after the delay · 'release': not tried; its lane
--   waits for the delay
-- → whether the group has deliveries (1, 0)
local id, lane = ARGV[1], lane_of(ARGV[1])
local _, token = lease_of(lane)
local is_holder = token == ARGV[2]
if is_holder then redis.call('HDEL', KEYS[1], lane) end
if ARGV[3] == 'done' then
  remove(id)
elseif is_holder and ARGV[3] == 'release' then
  redis.call('HSET', KEYS[1], lane, digits(clock() + ARGV[4]) .. ' ')
elseif is_holder and redis.call('ZREM', KEYS[2], id) == 1 then
  local tries = tonumber(string.match(redis.call('HGET', KEYS[1], 's:' .. id) or '0', '^%d+')) + 1
  redis.call('ZADD', KEYS[2], digits(clock() + ARGV[4]), id)
  redis.call('HSET', KEYS[1], 's:' .. id, tries .. ' ' .. ARGV[3] .. ' ' .. ARGV[5])
end
return redis.call('EXISTS', KEYS[2])
