-- Write down how far an action on many jobs has got, and keep it known that somebody works on it.
-- KEYS: 1 the operation, 2 all operations by the time at which they began
-- ARGV: 1 its id, 2 "begin" | "go on" | "end", 3 lease in ms, 4 how long it is known in s, 5.. field, value, ...
-- Returns: {0 go on | 1 it is to stop | 2 nothing is known of it any more, now in us}
-- Dynamic keys: none
--- @include time
local function us_text(us) return string.format('%d', us) end
if ARGV[2] == 'begin' then
    redis.call('HSET', KEYS[1], 'id', ARGV[1], 'started_at', us_text(now_us))
    redis.call('ZADD', KEYS[2], us_text(now_us), ARGV[1])
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', us_text(now_us - tonumber(ARGV[4]) * 1000000))
    redis.call('EXPIRE', KEYS[2], ARGV[4])
elseif redis.call('EXISTS', KEYS[1]) == 0 then
    return {2, now_us}
end
redis.call('HSET', KEYS[1], 'lease_until', us_text(now_us + tonumber(ARGV[3]) * 1000), unpack(ARGV, 5))
if ARGV[2] == 'end' then redis.call('HSET', KEYS[1], 'ended_at', us_text(now_us)) end
redis.call('EXPIRE', KEYS[1], ARGV[4])
return {redis.call('HEXISTS', KEYS[1], 'canceled_by'), now_us}
