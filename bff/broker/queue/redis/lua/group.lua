-- Goes before each script below. One group's queue; all keys begin with chat:{<group>}: and live in one slot of a cluster.
--   q       list    ids of the messages that wait, the next one first
--   run     hash    the message that runs: id, token, until (µs since 1970), said, stopping (why: stopped, unread), committed,
--                   wrote (its last write's name), over (its log has ended, its worker has not)
--   m:<id>  hash    a message: state, user, content, size, fleeting, trace, handler, scope and key (of its run),
--                   repeatable, restarts (how often it began anew),
--                   client (c:<key>'s key), left (µs since 1970), token, told (its last position), bytes (of its log), and where it lost its
--                   worker after it was committed: committed ('begun' if some of it was told, else '1');
--                   once finished: state, user, token, ended (its last write's name), and an expiry
--   r:<id>  zset    processes with readers of a fleeting message, by until when each counts (µs since 1970); expires
--   l:<id>  stream  its log: e(vent), d(ata); expires
--   c:<key> string  "<message id> <digest>": what a client's own message id stands for; expires
--   old     list    "<finished, µs> <bytes> <id>" of the logs that are kept, oldest first; expires
-- KEYS[1] is always q. Channels: chat:l:<id> (there is more to read), chat:stop ("<id> <why>": a running message shall stop).
local EVENT_BYTES = 300
local IDLE_MS = 3600000
local REMEMBER_MS = 86400000
local MAX_RESTARTS = 3
local base = string.sub(KEYS[1], 1, -2)

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
    redis.call('XADD', base .. 'l:' .. id, '*', 'e', words[i], 'd', words[i + 1])
    bytes = bytes + EVENT_BYTES + #words[i + 1]
  end
  redis.call('HINCRBY', base .. 'm:' .. id, 'bytes', bytes)
  redis.call('PEXPIRE', base .. 'l:' .. id, IDLE_MS)
  redis.call('PUBLISH', 'chat:l:' .. id, '')
end

local function tell_positions()
  for position, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
    if redis.call('HGET', base .. 'm:' .. id, 'told') ~= tostring(position) then
      write(id, {'queued', '{"message_id": "' .. id .. '", "position": ' .. position .. '}'})
      redis.call('HSET', base .. 'm:' .. id, 'told', position)
    end
  end
end

-- Keeps the finished logs' bytes of this group under `most`: the oldest go first, the newest stays in any case.
local function keep(id, bytes, retention, most)
  local old, now, sum = base .. 'old', clock(), 0
  redis.call('RPUSH', old, digits(now) .. ' ' .. bytes .. ' ' .. id)
  redis.call('PEXPIRE', old, retention)
  local kept = redis.call('LRANGE', old, 0, -1)
  for i = #kept, 1, -1 do
    local finished, size = string.match(kept[i], '^(%d+) (%d+) ')
    sum = sum + size
    if i < #kept and (sum > most or finished + retention * 1000 < now) then
      for gone = 1, i do redis.call('DEL', base .. 'l:' .. string.match(kept[gone], '([^ ]*)$')) end
      redis.call('LTRIM', old, i, -1)
      return
    end
  end
end

-- Writes the message's last words, those from `first` on, and its end; `name` is this write's own, by which its repetition is known.
local function finish(id, words, first, name, retention, most)
  local m = base .. 'm:' .. id
  write(id, words, first)
  write(id, {'done', '{"message_id": "' .. id .. '"}'})
  local bytes = redis.call('HGET', m, 'bytes')
  redis.call('HDEL', m, 'content', 'size', 'fleeting', 'trace', 'handler', 'scope', 'key', 'repeatable', 'restarts', 'client', 'left', 'told', 'bytes', 'committed')
  redis.call('HSET', m, 'state', 'finished', 'ended', name)
  redis.call('PEXPIRE', base .. 'l:' .. id, retention)
  redis.call('PEXPIRE', m, retention + REMEMBER_MS)
  keep(id, bytes, retention, tonumber(most))
end

-- Whether `id` runs under `token`; everybody else is late.
local function holds(id, token)
  local run = redis.call('HMGET', base .. 'run', 'id', 'token')
  return run[1] == id and run[2] == token
end

-- The message's state if it is this user's, else nil. Those finished by an earlier version name no user: their group is one's own.
local function state_of(id, user)
  local m = redis.call('HMGET', base .. 'm:' .. id, 'state', 'user')
  return (not m[2] or m[2] == user) and m[1] or nil
end

-- Ends a waiting message, tells a running one's worker to, for the reason `why`.
-- → 'finished' · 'running' · 'waiting' (it ended at once) · 'last' (likewise, and nothing is left to do)
local function stop(id, state, why, stopped, retention, most)
  local run = base .. 'run'
  if state == 'running' then
    if redis.call('HEXISTS', run, 'committed') == 0 then
      local first = redis.call('HGET', run, 'stopping') or why
      redis.call('HDEL', run, 'stopping') -- See due/take.lua.
      redis.call('HSET', run, 'stopping', first)
      redis.call('PUBLISH', 'chat:stop', id .. ' ' .. first)
    end
    return 'running'
  end
  if redis.call('HEXISTS', base .. 'm:' .. id, 'committed') == 1 then return 'waiting' end
  redis.call('LREM', KEYS[1], 1, id)
  finish(id, {'message', stopped}, 1, 'stopped', retention, most)
  tell_positions()
  return redis.call('EXISTS', KEYS[1], run) == 0 and 'last' or 'waiting'
end

-- Claims `id`, which waits no more, for `lease` µs.
-- → id, token, waited (µs), committed, user, content, size, fleeting, trace, handler, scope, key, repeatable
local function claim(id, lease)
  local m, now = base .. 'm:' .. id, clock()
  local token = redis.call('HINCRBY', m, 'token', 1)
  redis.call('HDEL', m, 'told')
  redis.call('HSET', m, 'state', 'running')
  redis.call('HSET', base .. 'run', 'id', id, 'token', token, 'until', digits(now + lease))
  tell_positions()
  local left, committed = unpack(redis.call('HMGET', m, 'left', 'committed'))
  if committed then redis.call('HSET', base .. 'run', 'committed', 1) end
  local message = redis.call('HMGET', m, 'user', 'content', 'size', 'fleeting', 'trace', 'handler', 'scope', 'key', 'repeatable')
  for i = 1, 9 do message[i] = message[i] or '' end -- Those left by an earlier version have fewer.
  return id, token, digits(now - left), committed or '', unpack(message)
end

-- Of an answer that has lost its worker after it said something: whether it begins anew, which its log says then.
local function restarts(id)
  local m = base .. 'm:' .. id
  local repeatable, before = unpack(redis.call('HMGET', m, 'repeatable', 'restarts'))
  if repeatable ~= '1' or tonumber(before or 0) >= MAX_RESTARTS then return false end
  redis.call('HINCRBY', m, 'restarts', 1)
  write(id, {'message', '{"type":"restart"}'})
  return true
end

-- Notes of a message that its next worker finds it committed; `started`: whether some of it was told.
local function stay_committed(id, said)
  if said then
    redis.call('HSET', base .. 'm:' .. id, 'committed', 'begun')
  else
    redis.call('HSETNX', base .. 'm:' .. id, 'committed', '1')
  end
end
