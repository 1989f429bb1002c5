-- Prepended to each script in group/ and schedule/: µs since 1970.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function digits(number) -- Lua would format microseconds as 1.7e+15.
  return string.format('%.0f', number)
end

