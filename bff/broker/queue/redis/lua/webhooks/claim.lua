-- KEYS hooks, hooksdue
-- ARGV lease (µs), token, maximum number of due deliveries to look at
-- → {when to check again (µs since 1970; '' for never)}, followed, if one was claimed, by its id, delivery and status
local now = clock()
local again, claimed

local function check_at(moment)
  if not again or moment < again then again = moment end
end

local held = {}
local function held_until(lane)
  held[lane] = held[lane] or lease_of(lane)
  return held[lane]
end

local function claim(id)
  local lane, delivery, status = lane_of(id), unpack(redis.call('HMGET', KEYS[1], 'd:' .. id, 's:' .. id))
  if not delivery or string.match(status or '', '^%d+ failed') then return remove(id) end
  redis.call('HDEL', KEYS[1], lane) -- See schedule/claim_due.lua.
  redis.call('HSET', KEYS[1], lane, digits(now + ARGV[1]) .. ' ' .. ARGV[2])
  held[lane] = now + ARGV[1]
  claimed = {id, delivery, status or ''}
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', digits(now), 'LIMIT', 0, ARGV[3])) do
  local free = held_until(lane_of(id)) <= now
  if free and not claimed then claim(id) elseif free then check_at(now) end
  if held_until(lane_of(id)) > now then check_at(held_until(lane_of(id))) end
end
local next = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. digits(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
if next then check_at(tonumber(next)) end
return {again and digits(again) or '', unpack(claimed or {})}
