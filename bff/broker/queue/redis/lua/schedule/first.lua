-- KEYS due
-- → {the result of `first`, now (µs since 1970)}
return {first(), digits(clock())}
