-- Prepended to each script in schedule/. KEYS[1]: <prefix>:{<part>}:due: sorted set of those groups with waiting or running
-- messages that are in this part of the schedule, by when to check them (µs since 1970).
local base, prefix, part = string.match(KEYS[1], '^((.-){(.-)}:)')

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function digits(number) -- Lua would format microseconds as 1.7e+15.
  return string.format('%.0f', number)
end

-- → when the first group is due; '' if there is none
local function first()
  return redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or ''
end
