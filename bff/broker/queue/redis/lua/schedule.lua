-- Prepended to each script in schedule/. KEYS[1]: <prefix>:{<part>}:due: sorted set of those groups with waiting or running
-- messages that are in this part of the schedule, by when to check them (µs since 1970).
local base, prefix, part = string.match(KEYS[1], '^((.-){(.-)}:)')

-- → when the first group is due; '' if there is none
local function first()
  return redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or ''
end
