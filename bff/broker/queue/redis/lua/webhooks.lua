-- Prepended to each script in webhooks/. KEYS, for all of them: the webhook deliveries of one group, in its slot:
--   hooks     hash  d:<id>    JSON: URL, `Message.webhook`, message id, user, when the message ended (µs since 1970), the last event's data
--                   s:<id>    "<failed tries> <waiting or failed> <error>": what became of the tries so far
--                   l:<lane>  "<until, µs> <token>": nothing of the lane is sent until then, but by the token's claim
--   hooksdue  zset  their ids by when they are due; if they have failed, by when they are deleted (µs since 1970)
-- An id begins with the group's hash, and the URL's in 16 characters, which names the lane.
local function lane_of(id)
  return 'l:' .. string.sub(id, 33, 48)
end

local function remove(id)
  redis.call('ZREM', KEYS[2], id)
  redis.call('HDEL', KEYS[1], 'd:' .. id, 's:' .. id)
end

-- → the lease's end (µs; 0 if there is none), its token or ''
local function lease_of(lane)
  local till, token = string.match(redis.call('HGET', KEYS[1], lane) or '0 ', '^(%d+) (.*)$')
  return tonumber(till), token
end
