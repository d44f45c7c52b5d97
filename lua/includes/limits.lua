-- Limiters: whether a job may start now, and what starting it uses up. Needs time.lua, `attempt`.
--   rqxx:limit:<kind>:<limiter>, of a
--                          token and leaky bucket: string, when the bucket is full again (us);
--                          fixed window: string, `<number of the window> <points used in it>`;
--                          sliding window: list, when each point of the last window was used (us);
--                          concurrency: sorted set of `<worker>|<job id>:<execution id>`, `...#2` and so on for more points
--   rqxx:limits:until      sorted set: limiters that were pushed back, by until when (us)
-- Source of the buckets: the generic cell rate algorithm, ITU-T I.371, annex A.

local reading = false   -- whether nothing is to be changed
local limiters = {}   -- those that were looked at, by name
local pushed_back

local function is_pushed_back(name)
    if not pushed_back then
        pushed_back = {}
        local flat = attempt('ZRANGEBYSCORE', 'rqxx:limits:until', string.format('(%d', now_us), '+inf', 'WITHSCORES', 'LIMIT', 0, 1000)
        for i = 1, #flat, 2 do pushed_back[flat[i]] = tonumber(flat[i + 1]) end
    end
    return pushed_back[name]
end

local kinds = {}

-- One at a time; a quarter of the time between two may be made up for, which is what waking up takes: without, a bucket that
-- is always waited for would let through less than its limit.
local leaky_burst = 1.25

-- Both buckets: `interval` is what one point costs in time, `depth` how much of it may be used at once.
local bucket = {
    load = function(limiter) limiter.full_at = math.max(tonumber(attempt('GET', limiter.key) or nil) or 0, now_us) end,
    wait = function(limiter, points)
        local interval = limiter.rule.per / limiter.rule.limit
        local until_us = limiter.full_at + points * interval - math.max(limiter.rule.burst or limiter.rule.limit, points) * interval
        if until_us > now_us then return math.ceil(until_us) end
    end,
    take = function(limiter, points) limiter.full_at = limiter.full_at + points * limiter.rule.per / limiter.rule.limit end,
    store = function(limiter)
        -- Up, never down: a bucket that is a microsecond late is no fault, one that is early is.
        local full_at = math.ceil(limiter.full_at)
        attempt('SET', limiter.key, string.format('%d', full_at), 'PX', math.ceil((full_at - now_us) / 1000) + 1000)
    end,
}
kinds['token-bucket'] = bucket
kinds['leaky-bucket'] = bucket

kinds['fixed-window'] = {
    load = function(limiter)
        local window, used = string.match(attempt('GET', limiter.key) or '', '^(%d+) (%d+)$')
        limiter.window = math.floor(now_us / limiter.rule.per)
        limiter.used = tonumber(window) == limiter.window and tonumber(used) or 0
    end,
    wait = function(limiter, points)
        if limiter.used > 0 and limiter.used + points > limiter.rule.limit then
            return (limiter.window + 1) * limiter.rule.per
        end
    end,
    take = function(limiter, points) limiter.used = limiter.used + points end,
    store = function(limiter)
        attempt('SET', limiter.key, string.format('%d %d', limiter.window, limiter.used), 'PX', math.ceil(limiter.rule.per / 1000) + 1000)
    end,
}

kinds['sliding-window'] = {
    load = function(limiter)
        -- What has left the window goes, unless nothing is to be changed.
        local horizon = now_us - limiter.rule.per
        local past, page = 0, attempt('LRANGE', limiter.key, 0, 0)
        while page[1] and tonumber(page[1]) <= horizon do
            page = attempt('LRANGE', limiter.key, past, past + 99)
            for i = 1, #page do
                if tonumber(page[i]) > horizon then break end
                past = past + 1
            end
            page = attempt('LRANGE', limiter.key, past, past)
        end
        if past > 0 and not reading then attempt('LTRIM', limiter.key, past, -1) end
        local length = attempt('LLEN', limiter.key)
        limiter.past = reading and past or 0
        limiter.used = type(length) == 'number' and length - limiter.past or 0
    end,
    wait = function(limiter, points)
        local excess = limiter.used + points - limiter.rule.limit
        if limiter.used > 0 and excess > 0 then
            local leaves = tonumber(attempt('LINDEX', limiter.key, limiter.past + math.min(excess, limiter.used) - 1) or nil)
            return (leaves or now_us) + limiter.rule.per
        end
    end,
    take = function(limiter, points)
        limiter.used = limiter.used + points
        for _ = 1, points do attempt('RPUSH', limiter.key, string.format('%d', now_us)) end
    end,
    store = function(limiter) attempt('PEXPIRE', limiter.key, math.ceil(limiter.rule.per / 1000) + 1000) end,
}

kinds['concurrency'] = {
    load = function(limiter)
        limiter.used = attempt('ZCARD', limiter.key)
        if type(limiter.used) ~= 'number' then limiter.used = 0 end
    end,
    wait = function(limiter, points)
        if limiter.used > 0 and limiter.used + points > limiter.rule.limit then return -1 end
    end,
    take = function(limiter, points, holder)
        limiter.used = limiter.used + points
        attempt('ZADD', limiter.key, now_float, holder)
        for i = 2, points do attempt('ZADD', limiter.key, now_float, holder .. '#' .. i) end
    end,
}

-- A function that is paused.
kinds['pause'] = {load = function() end, wait = function() return -1 end}

-- A rule as it is stored, as the plan of a claim has it; false where nobody can read it.
local function rule_of(text)
    local ok, rule = pcall(cjson.decode, text)
    if not ok or type(rule) ~= 'table' or type(rule.kind) ~= 'string' then return false end
    rule.per = (tonumber(rule.per) or 0) * 1000000
    rule.limit, rule.burst = tonumber(rule.limit) or 1, tonumber(rule.burst)
    if rule.kind == 'leaky-bucket' then rule.burst = leaky_burst end
    rule.worker = rule.scope == 'worker'
    return rule
end

-- The limiter of a rule, for a key ("" where it has none). nil: the rule is gone, and limits nothing any more.
local function limiter_of(rules, rule, key)
    local definition = rules[rule]
    if not definition or not kinds[definition.kind] then return nil end
    local name = key ~= '' and rule .. ':' .. key or rule
    local limiter = limiters[name]
    if not limiter then
        limiter = {name = name, key = 'rqxx:limit:' .. definition.kind .. ':' .. name, rule = definition, kind = kinds[definition.kind]}
        limiter.kind.load(limiter)
        limiters[name] = limiter
    end
    return limiter
end

-- nil: `points` more may be used now. Else when they may (us), or -1: when somebody gives some back.
local function wait_of(limiter, points)
    return is_pushed_back(limiter.name) or limiter.kind.wait(limiter, points)
end

-- How many jobs of one point may start now, at most `most`.
local function free_points(limiter, most)
    if wait_of(limiter, 1) then return 0 end
    local low, high = 1, math.min(most, math.max(math.floor(limiter.rule.burst or limiter.rule.limit or most), 1))
    while low < high do
        local middle = math.ceil((low + high) / 2)
        if limiter.kind.wait(limiter, middle) then high = middle - 1 else low = middle end
    end
    return low
end

local function use(limiter, points, holder)
    limiter.kind.take(limiter, points, holder)
    limiter.changed = true
end

local function store_limiters()
    for _, limiter in pairs(limiters) do
        if limiter.changed and limiter.kind.store then limiter.kind.store(limiter) end
    end
end
