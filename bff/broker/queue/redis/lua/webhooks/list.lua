-- KEYS hooks, hooksdue
-- ARGV maximum number
-- → {id, when it is due (µs since 1970), delivery, status}, …, in the order in which they are due
local result, due = {}, redis.call('ZRANGE', KEYS[2], 0, ARGV[1] - 1, 'WITHSCORES')
for i = 1, #due, 2 do
  local delivery, status = unpack(redis.call('HMGET', KEYS[1], 'd:' .. due[i], 's:' .. due[i]))
  if delivery then result[#result + 1] = {due[i], digits(tonumber(due[i + 1])), delivery, status or ''} end
end
return result
