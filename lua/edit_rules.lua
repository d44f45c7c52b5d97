-- Add, change or take away a rule, and tell the workers.
-- ARGV: 1 name, 2 JSON ("" to take it away), 3 "" | "new" (only where there is none) | SHA1 of what is to be there
-- Returns: 1 where there was a rule of this name, 0 where not, -1 where another one is there, or none: nothing has changed
-- Dynamic keys: none
if ARGV[3] == 'new' then
    if redis.pcall('HEXISTS', 'rqxx:rules', ARGV[1]) ~= 0 then return -1 end
elseif ARGV[3] ~= '' then
    local there = redis.pcall('HGET', 'rqxx:rules', ARGV[1])
    if type(there) ~= 'string' or redis.sha1hex(there) ~= ARGV[3] then return -1 end
end
redis.call('INCR', 'rqxx:rules:version')
local found = redis.pcall('HEXISTS', 'rqxx:rules', ARGV[1])
if ARGV[2] == '' then
    redis.pcall('HDEL', 'rqxx:rules', ARGV[1])
    redis.pcall('ZREM', 'rqxx:limits:until', ARGV[1])
else
    redis.pcall('HSET', 'rqxx:rules', ARGV[1], ARGV[2])
end
redis.pcall('PUBLISH', 'rqxx:wake', '*')
return found
