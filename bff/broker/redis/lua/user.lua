-- Goes before each script below. One user's queue; all keys begin with chat:{<user>}: and live in one slot of a cluster.
--   q       list    ids of the messages that wait, the next one first
--   run     hash    the message that runs: id, token, until (µs since 1970), said, stopping, wrote (its last write's name)
--   m:<id>  hash    a message: state, user, content, size, fleeting, trace, left (µs since 1970), token,
--                   told (its last position), bytes (of its log);
--                   once finished: state, token, ended (its last write's name), and an expiry
--   l:<id>  stream  its log: e(vent), d(ata); expires
--   c:<key> string  "<message id> <digest>": what a client's own message id stands for; expires
--   old     list    "<finished, µs> <bytes> <id>" of the logs that are kept, oldest first; expires
-- KEYS[1] is always q. Channels: chat:l:<id> (there is more to read), chat:stop (a running message shall stop).
local EVENT_BYTES = 300
local IDLE_MS = 3600000
local REMEMBER_MS = 86400000
local user = string.sub(KEYS[1], 1, -2)

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function digits(number) -- Lua would write microseconds as 1.7e+15.
  return string.format('%.0f', number)
end

local function write(id, words, first)
  local bytes = 0
  for i = first or 1, #words, 2 do
    redis.call('XADD', user .. 'l:' .. id, '*', 'e', words[i], 'd', words[i + 1])
    bytes = bytes + EVENT_BYTES + #words[i + 1]
  end
  redis.call('HINCRBY', user .. 'm:' .. id, 'bytes', bytes)
  redis.call('PEXPIRE', user .. 'l:' .. id, IDLE_MS)
  redis.call('PUBLISH', 'chat:l:' .. id, '')
end

local function tell_positions()
  for position, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
    if redis.call('HGET', user .. 'm:' .. id, 'told') ~= tostring(position) then
      write(id, {'queued', '{"message_id": "' .. id .. '", "position": ' .. position .. '}'})
      redis.call('HSET', user .. 'm:' .. id, 'told', position)
    end
  end
end

-- Keeps the finished logs' bytes of this user under `most`: the oldest go first, the newest stays in any case.
local function keep(id, bytes, retention, most)
  local old, now, sum = user .. 'old', clock(), 0
  redis.call('RPUSH', old, digits(now) .. ' ' .. bytes .. ' ' .. id)
  redis.call('PEXPIRE', old, retention)
  local kept = redis.call('LRANGE', old, 0, -1)
  for i = #kept, 1, -1 do
    local finished, size = string.match(kept[i], '^(%d+) (%d+) ')
    sum = sum + size
    if i < #kept and (sum > most or finished + retention * 1000 < now) then
      for gone = 1, i do redis.call('DEL', user .. 'l:' .. string.match(kept[gone], '([^ ]*)$')) end
      redis.call('LTRIM', old, i, -1)
      return
    end
  end
end

-- Writes the message's last words, those from `first` on, and its end; `name` is this write's own, by which its repetition is known.
local function finish(id, words, first, name, retention, most)
  local m = user .. 'm:' .. id
  write(id, words, first)
  write(id, {'done', '{"message_id": "' .. id .. '"}'})
  local bytes = redis.call('HGET', m, 'bytes')
  redis.call('HDEL', m, 'user', 'content', 'size', 'fleeting', 'trace', 'left', 'told', 'bytes')
  redis.call('HSET', m, 'state', 'finished', 'ended', name)
  redis.call('PEXPIRE', user .. 'l:' .. id, retention)
  redis.call('PEXPIRE', m, retention + REMEMBER_MS)
  keep(id, bytes, retention, tonumber(most))
end

-- Whether `id` runs under `token`; everybody else is late.
local function holds(id, token)
  local run = redis.call('HMGET', user .. 'run', 'id', 'token')
  return run[1] == id and run[2] == token
end
