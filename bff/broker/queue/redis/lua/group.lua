-- Prepended to each script in group/. One group's queue: all keys begin with <prefix>:{<group>}: and live in one cluster slot.
--   q       list    ids of the waiting messages, the next one first
--   run     hash    the running message: id, token ("<token>-<nonce>" of its claim), until (the lease's end, µs since 1970),
--                   said (set once output has started), stopping (why it has to stop: stopped, unread), committed,
--                   wrote (the last write's name), over (set once its log has ended but its worker has not finished)
--   m:<id>  hash    a message: state, user, content, size, fleeting (1: cancel on disconnect), trace, handler,
--                   scope and key (of its run), repeatable, webhook, restarts (their number), client (the key c:<key>),
--                   left (when it was enqueued, µs since 1970), token, told (its last published position), bytes (of its log),
--                   committed (set if it lost its worker after a commit: 'begun' if output had started, else '1');
--                   once finished: state, user, token, ended (the last write's name), and an expiry
--   r:<id>  zset    processes with readers of a message to be cancelled on disconnect, by their deadline (µs since 1970); expires
--   l:<id>  stream  a log: e (event type), d (data); expires
--   c:<key> string  "<message id> <digest>": the message of a client_message_id; expires
--   w       string  written to wait for the replicas (see logs.py); expires
--   old     list    "<finished, µs> <bytes> <id>" of the finished logs, oldest first; expires
--   hooks, hooksdue   webhook deliveries of messages that have ended: see webhooks.lua
-- Channels: <prefix>:l:<id> (new events in a log; where SHARDED, named like the log's key), <prefix>:stop ("<id> <reason>": a
-- running message has to stop). CLUSTER and SHARDED are set by bff/ops/redis.py.
local EVENT_BYTES = 300
local IDLE_MS = 3600000
local TTL_MS = 86400000
local MAX_RESTARTS = 3
local base, prefix = string.match(KEYS[1], '^((.-){.-}:)')

-- In a cluster every key has to be declared: while a slot moves to another node, Redis then refuses a script of which one node has
-- only a part of the keys, where it would otherwise run it on that part. → {'keys', …}: keys that the caller has to declare,
-- too, and call again; nil if all are. Nothing may be written before. Needs q, run and old. `more`: other keys, or nil.
local function undeclared(more)
  if not CLUSTER then return nil end
  local declared, result = {}, {'keys'}
  for _, key in ipairs(KEYS) do declared[key] = true end
  local function need(key)
    if not declared[key] then
      declared[key] = true
      result[#result + 1] = key
    end
  end
  local ids = redis.call('LRANGE', base .. 'q', 0, -1)
  ids[#ids + 1] = redis.call('HGET', base .. 'run', 'id') or nil
  for _, id in ipairs(ids) do
    need(base .. 'm:' .. id)
    need(base .. 'l:' .. id)
  end
  for _, finished in ipairs(redis.call('LRANGE', base .. 'old', 0, -1)) do need(base .. 'l:' .. string.match(finished, '([^ ]*)$')) end
  for _, key in ipairs(more or {}) do need(key) end
  return #result > 1 and result or nil
end

local function write(id, entries, first)
  local bytes = 0
  for i = first or 1, #entries, 2 do
    redis.call('XADD', base .. 'l:' .. id, '*', 'e', entries[i], 'd', entries[i + 1])
    bytes = bytes + EVENT_BYTES + #entries[i + 1]
  end
  redis.call('HINCRBY', base .. 'm:' .. id, 'bytes', bytes)
  redis.call('PEXPIRE', base .. 'l:' .. id, IDLE_MS)
  if SHARDED then redis.call('SPUBLISH', base .. 'l:' .. id, '') else redis.call('PUBLISH', prefix .. 'l:' .. id, '') end
end

local function publish_positions()
  for position, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
    if redis.call('HGET', base .. 'm:' .. id, 'told') ~= tostring(position) then
      write(id, {'queued', '{"message_id": "' .. id .. '", "position": ' .. position .. '}'})
      redis.call('HSET', base .. 'm:' .. id, 'told', position)
    end
  end
end

-- Adds a finished log, and deletes the group's oldest ones while they exceed `max_bytes` in total; the newest one always stays.
local function add_finished(id, bytes, retention, max_bytes)
  local old, now, sum = base .. 'old', clock(), 0
  redis.call('RPUSH', old, digits(now) .. ' ' .. bytes .. ' ' .. id)
  redis.call('PEXPIRE', old, retention)
  local logs = redis.call('LRANGE', old, 0, -1)
  for i = #logs, 1, -1 do
    local finished, size = string.match(logs[i], '^(%d+) (%d+) ')
    sum = sum + size
    if i < #logs and (sum > max_bytes or finished + retention * 1000 < now) then
      for j = 1, i do redis.call('DEL', base .. 'l:' .. string.match(logs[j], '([^ ]*)$')) end
      redis.call('LTRIM', old, i, -1)
      return
    end
  end
end

-- Stores the webhook deliveries of a message that ends with an entry with this data. Their ids are those of `delivery_id` in
-- ../../deliveries.py, so that an end that is repeated after a fail-over stores nothing twice.
local function store_deliveries(id, data)
  local webhook, user = unpack(redis.call('HMGET', base .. 'm:' .. id, 'webhook', 'user'))
  if not webhook or webhook == '' then return end
  local group, now = string.match(base, '{(.-)}'), digits(clock())
  for _, url in ipairs(cjson.decode(webhook).urls) do
    local delivery = group .. string.sub(redis.sha1hex(url), 1, 16) .. string.sub(redis.sha1hex(id), 1, 24)
    redis.call('HSET', base .. 'hooks', 'd:' .. delivery, cjson.encode({url, webhook, id, user or '', now, data}))
    redis.call('ZADD', base .. 'hooksdue', 'NX', now, delivery)
  end
end

-- Writes the final entries, from index `first` on, and `done`. `name` identifies this write, so that a repetition is recognized.
local function finish(id, entries, first, name, retention, max_bytes)
  local m = base .. 'm:' .. id
  store_deliveries(id, #entries > first and entries[#entries] or '')
  write(id, entries, first)
  write(id, {'done', '{"message_id": "' .. id .. '"}'})
  local bytes = redis.call('HGET', m, 'bytes')
  redis.call('HDEL', m, 'content', 'size', 'fleeting', 'trace', 'handler', 'scope', 'key', 'repeatable', 'webhook', 'restarts', 'client', 'left', 'told', 'bytes', 'committed')
  redis.call('HSET', m, 'state', 'finished', 'ended', name)
  redis.call('PEXPIRE', base .. 'l:' .. id, retention)
  redis.call('PEXPIRE', m, retention + TTL_MS)
  add_finished(id, bytes, retention, tonumber(max_bytes))
end

-- Whether `id` is running under `token`: otherwise the caller has lost its lease. The token's nonce tells two claims apart of
-- which the first was lost in a fail-over, after which the second gets the same number.
local function holds_lease(id, token)
  local run = redis.call('HMGET', base .. 'run', 'id', 'token')
  return run[1] == id and run[2] == token
end

-- The message's state if it belongs to this user, else nil. Messages finished by an earlier version have no user: they are in the
-- user's default group.
local function state_of(id, user)
  local m = redis.call('HMGET', base .. 'm:' .. id, 'state', 'user')
  return (not m[2] or m[2] == user) and m[1] or nil
end

-- Finishes a waiting message; asks a running one's worker to stop, with `reason`.
-- → 'finished' · 'running' · 'waiting' (now finished) · 'last' (now finished, and the group has no other active message)
local function stop(id, state, reason, stopped, retention, max_bytes)
  local run = base .. 'run'
  if state == 'running' then
    if redis.call('HEXISTS', run, 'committed') == 0 then
      local first = redis.call('HGET', run, 'stopping') or reason
      redis.call('HDEL', run, 'stopping') -- See schedule/claim_due.lua.
      redis.call('HSET', run, 'stopping', first)
      redis.call('PUBLISH', prefix .. 'stop', id .. ' ' .. first)
    end
    return 'running'
  end
  if redis.call('HEXISTS', base .. 'm:' .. id, 'committed') == 1 then return 'waiting' end
  redis.call('LREM', KEYS[1], 1, id)
  finish(id, {'message', stopped}, 1, 'stopped', retention, max_bytes)
  publish_positions()
  return redis.call('EXISTS', KEYS[1], run) == 0 and 'last' or 'waiting'
end

-- Whether the run has lost a write in a fail-over. `wrote`: the run's last write; `previous`: the claim's, or '' if not known.
local function has_gap(wrote, previous)
  return previous ~= '' and wrote ~= previous
end

-- → id, token, waited (µs), committed, user, content, size, fleeting, trace, handler, scope, key, repeatable, webhook
local function describe_claim(id)
  local m = base .. 'm:' .. id
  local token, enqueued, committed = unpack(redis.call('HMGET', m, 'token', 'left', 'committed'))
  local message = redis.call('HMGET', m, 'user', 'content', 'size', 'fleeting', 'trace', 'handler', 'scope', 'key', 'repeatable', 'webhook')
  for i = 1, 10 do message[i] = message[i] or '' end -- Messages of an earlier version have fewer fields.
  return id, tonumber(token), digits(clock() - enqueued), committed or '', unpack(message)
end

-- Claims `id`, which was removed from q, for `lease` µs. → the result of `describe_claim`
local function claim(id, lease, nonce)
  local m, now = base .. 'm:' .. id, clock()
  local token = redis.call('HINCRBY', m, 'token', 1)
  redis.call('HDEL', m, 'told')
  redis.call('HSET', m, 'state', 'running')
  redis.call('HSET', base .. 'run', 'id', id, 'token', token .. '-' .. nonce, 'until', digits(now + lease))
  publish_positions()
  if redis.call('HEXISTS', m, 'committed') == 1 then redis.call('HSET', base .. 'run', 'committed', 1) end
  return describe_claim(id)
end

-- For a reply that lost its worker after output had started: writes a restart event, if it may restart. → whether it does
local function try_restart(id)
  local m = base .. 'm:' .. id
  local repeatable, restarts = unpack(redis.call('HMGET', m, 'repeatable', 'restarts'))
  if repeatable ~= '1' or tonumber(restarts or 0) >= MAX_RESTARTS then return false end
  redis.call('HINCRBY', m, 'restarts', 1)
  write(id, {'message', '{"type":"restart"}'})
  return true
end

-- Tells the message's next worker that it was committed, and whether output had started.
local function keep_committed(id, started)
  if started then
    redis.call('HSET', base .. 'm:' .. id, 'committed', 'begun')
  else
    redis.call('HSETNX', base .. 'm:' .. id, 'committed', '1')
  end
end
