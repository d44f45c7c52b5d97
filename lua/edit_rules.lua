-- Add, change and take away rules, and tell the workers.
-- ARGV: for each name, JSON ("" to take it away)
-- Returns: for each 1 where there was a rule of this name
-- Dynamic keys: none
local found = {}
redis.call('INCR', 'rqxx:rules:version')
for i = 1, #ARGV, 2 do
    found[#found + 1] = redis.pcall('HEXISTS', 'rqxx:rules', ARGV[i])
    if ARGV[i + 1] == '' then
        redis.pcall('HDEL', 'rqxx:rules', ARGV[i])
        redis.pcall('ZREM', 'rqxx:limits:until', ARGV[i])
    else
        redis.pcall('HSET', 'rqxx:rules', ARGV[i], ARGV[i + 1])
    end
end
redis.pcall('PUBLISH', 'rqxx:wake', '*')
return found
