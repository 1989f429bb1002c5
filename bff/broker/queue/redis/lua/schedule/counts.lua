-- KEYS due
-- → {number of groups, number of those that are not due}
return {redis.call('ZCARD', KEYS[1]), redis.call('ZCOUNT', KEYS[1], '(' .. digits(clock()), '+inf')}
