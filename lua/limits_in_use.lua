-- How the limiters stand that are in use, or that something waits for. Changes nothing.
-- ARGV: 1 most limiters to tell of, 2 the only rule or ""
-- Returns: {limiter, points used, what waits for it, pushed back until (us) or 0}...
-- Dynamic keys: see includes/lanes.lua, includes/limits.lua
--- @include time
local attempt = redis.pcall
--- @include limits
reading = true

local rules = {}
local flat = redis.call('HGETALL', 'rqxx:rules')
for i = 1, #flat, 2 do rules[flat[i]] = rule_of(flat[i + 1]) end

local names, seen = {}, {}
local function add(name)
    local rule = string.match(name, '^[^:@]*')
    if (ARGV[2] == '' or ARGV[2] == rule) and not seen[name] and rules[rule] and kinds[rules[rule].kind] and #names < tonumber(ARGV[1]) then
        seen[name] = true
        names[#names + 1] = name
    end
end
for name in pairs(rules) do add(name) end
for _, name in ipairs(attempt('SRANDMEMBER', 'rqxx:waiting', ARGV[1])) do add(name) end
for _, name in ipairs(attempt('ZRANGE', 'rqxx:limits:until', 0, tonumber(ARGV[1]))) do add(name) end
table.sort(names)

local report = {}
for _, name in ipairs(names) do
    local rule, key = string.match(name, '^([^:]*):?(.*)$')
    local limiter = limiter_of(rules, rule, key)
    local used = limiter.used
    if limiter.full_at > now_us then
        used = math.ceil((limiter.full_at - now_us) * limiter.rule.limit / limiter.rule.per)
    end
    local waiting = attempt('ZCARD', 'rqxx:waiters:' .. name)
    report[#report + 1] = {name, used or 0, type(waiting) == 'number' and waiting or 0, (pushed_back or read_pushed_back())[name] or 0}
end
return report
