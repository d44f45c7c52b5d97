-- Let those pass that wait for limiters whose workers have not done so: nobody was free when the time came, a message was
-- lost, or a rule has changed.
-- ARGV: 1 most limiters to look at, 2 a rule, of which all are looked at, or ""
-- Returns: how many lanes and queues were let pass
-- Dynamic keys: see includes/lanes.lua, includes/limits.lua
--- @include time
local attempt = redis.pcall
--- @include lanes
--- @include limits

if redis.call('EXISTS', 'rqxx:waiting') == 0 then return 0 end
local names = {}
if ARGV[2] == '' then
    names = attempt('SRANDMEMBER', 'rqxx:waiting', ARGV[1])
else
    for _, name in ipairs(attempt('SMEMBERS', 'rqxx:waiting')) do
        if string.match(name, '^[^:@]*') == ARGV[2] then names[#names + 1] = name end
    end
end

local rules = {}
local passed = 0
for _, name in ipairs(names) do
    local rule, key = string.match(name, '^([^:]*):?(.*)$')
    if rules[rule] == nil then rules[rule] = rule_of(attempt('HGET', 'rqxx:rules', rule) or '') end
    local limiter = limiter_of(rules, rule, key)
    local free = limiter and free_points(limiter, 1000) or 1000
    if free > 0 then passed = passed + wake(name, free) end
    if attempt('EXISTS', 'rqxx:waiters:' .. name) == 0 then attempt('SREM', 'rqxx:waiting', name) end
end
tell_woken()
return passed
