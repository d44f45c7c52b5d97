-- Let nothing pass a limiter for a while. What waits for it then waits until its time.
-- ARGV: 1 limiter, 2 for how long (us; 0: no longer)
-- Dynamic keys: see includes/lanes.lua, includes/limits.lua
--- @include time
local attempt = redis.pcall
--- @include lanes
local name, until_us = ARGV[1], now_us + tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', 'rqxx:limits:until', '-inf', now_us)
if until_us == now_us then
    attempt('ZREM', 'rqxx:limits:until', name)
    wake(name, 1000)
else
    attempt('ZADD', 'rqxx:limits:until', until_us, name)
end
tell_woken()
