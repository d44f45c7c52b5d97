-- Add, change or take away a schedule that is kept in Redis.
-- KEYS: 1 schedules kept in Redis, 2 their version, 3 state of the schedule
-- ARGV: 1 its name, 2 JSON ("" to take it away), 3 "" | "new" (only where there is none) | SHA1 of what is to be there, 4 most
-- Returns: 1 done, 0 there is none (or, with "new", one), 2 another one is there, 3 there are too many
local there = redis.call('HGET', KEYS[1], ARGV[1])
if ARGV[3] == 'new' then
    if there then return 0 end
    if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then return 3 end
else
    if not there then return 0 end
    if ARGV[3] ~= '' and redis.sha1hex(there) ~= ARGV[3] then return 2 end
end
redis.call('INCR', KEYS[2])
if ARGV[2] ~= '' then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
else
    redis.call('HDEL', KEYS[1], ARGV[1])
    redis.call('DEL', KEYS[3])
end
return 1
