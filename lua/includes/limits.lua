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
local pushed_back   -- limiters, by until when

local function read_pushed_back()
    pushed_back = {}
    local flat = attempt('ZRANGEBYSCORE', 'rqxx:limits:until', string.format('(%d', now_us), '+inf', 'WITHSCORES', 'LIMIT', '0', '1000')
    for i = 1, #flat, 2 do pushed_back[flat[i]] = tonumber(flat[i + 1]) end
    return pushed_back
end

local kinds = {}

-- One at a time; a quarter of the time between two may be made up for, which is what waking up takes: without, a bucket that
-- is always waited for would let through less than its limit.
local leaky_burst = 1.25

-- Both buckets. Of a rule: `interval`, what one point costs in time; `depth`, for how long it may be used up ahead.
local bucket = {
    learn = function(rule)
        rule.interval = rule.per / rule.limit
        rule.depth = (rule.burst or rule.limit) * rule.interval
        rule.lifetime = string.format('%d', math.min(rule.depth / 1000 + 1000, 1e15))
    end,
    read = function(limiter, text)
        local full_at = tonumber(text)
        limiter.full_at = full_at and full_at > now_us and full_at or now_us
    end,
    wait = function(limiter, points)
        local rule = limiter.rule
        local cost, depth = points * rule.interval, rule.depth
        if cost > depth then depth = cost end
        local until_us = limiter.full_at + cost - depth
        if until_us > now_us then return math.ceil(until_us) end
    end,
    take = function(limiter, points) limiter.full_at = limiter.full_at + points * limiter.rule.interval end,
    store = function(limiter)
        local rule, left = limiter.rule, limiter.full_at - now_us
        -- Up, never down: a bucket that is a microsecond late is no fault, one that is early is.
        attempt('SET', limiter.key, string.format('%d', math.ceil(limiter.full_at)), 'PX',
            left <= rule.depth and rule.lifetime or string.format('%d', left / 1000 + 1000))
    end,
}
kinds['token-bucket'] = bucket
kinds['leaky-bucket'] = bucket

kinds['fixed-window'] = {
    read = function(limiter, text)
        local window, used = string.match(text or '', '^(%d+) (%d+)$')
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

-- Of what a window's list has, the part that has left the window goes, unless nothing is to be changed.
local function trim_window(limiter)
    local horizon = now_us - limiter.rule.per
    local past, size = 0, 5
    repeat
        local page = attempt('LRANGE', limiter.key, past, past + size - 1)
        local before = past
        for i = 1, #page do
            if tonumber(page[i]) > horizon then break end
            past = past + 1
        end
        local whole = past - before == size
        size = 100
    until not whole
    if past > 0 and not reading then attempt('LTRIM', limiter.key, past, -1) end
    limiter.past = reading and past or 0
    limiter.used = limiter.used - past
    limiter.trimmed = true
end

-- The list is looked through only where its length alone would hold somebody up, and once for so many points.
local trim_each = 64
kinds['sliding-window'] = {
    load = function(limiter)
        local length = attempt('LLEN', limiter.key)
        limiter.past, limiter.used, limiter.taken = 0, type(length) == 'number' and length or 0, 0
        if reading and limiter.used > 0 then trim_window(limiter) end
    end,
    wait = function(limiter, points)
        local excess = limiter.used + points - limiter.rule.limit
        if limiter.used > 0 and excess > 0 and not limiter.trimmed then
            trim_window(limiter)
            excess = limiter.used + points - limiter.rule.limit
        end
        if limiter.used > 0 and excess > 0 then
            local leaves = tonumber(attempt('LINDEX', limiter.key, limiter.past + math.min(excess, limiter.used) - 1) or nil)
            return (leaves or now_us) + limiter.rule.per
        end
    end,
    take = function(limiter, points) limiter.used, limiter.taken = limiter.used + points, limiter.taken + points end,
    store = function(limiter)
        local times, at = {}, string.format('%d', now_us)
        for i = 1, limiter.taken do times[i] = at end
        for i = 1, #times, 1000 do attempt('RPUSH', limiter.key, unpack(times, i, math.min(i + 999, #times))) end
        if not limiter.trimmed and limiter.used % trim_each < limiter.taken then trim_window(limiter) end
        attempt('PEXPIRE', limiter.key, math.ceil(limiter.rule.per / 1000) + 1000)
    end,
}

kinds['concurrency'] = {
    is_held = true,   -- until the job ends
    load = function(limiter)
        limiter.used = attempt('ZCARD', limiter.key)
        if type(limiter.used) ~= 'number' then limiter.used = 0 end
    end,
    wait = function(limiter, points)
        if limiter.used > 0 and limiter.used + points > limiter.rule.limit then return -1 end
    end,
    take = function(limiter, points, member)
        local holder = ARGV[1] .. '|' .. member   -- of the worker that claims
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

local unread = {}   -- those of `limiters` that are to be read from Redis
local function read_limiters()
    local keys, of_keys = {}, {}
    for _, limiter in ipairs(unread) do
        if limiter.kind.read then
            local at = #keys + 1
            keys[at], of_keys[at] = limiter.key, limiter
        else
            limiter.kind.load(limiter)
        end
    end
    unread = {}
    for i = 1, #keys, 1000 do
        local texts = attempt('MGET', unpack(keys, i, math.min(i + 999, #keys)))
        for at, text in ipairs(texts) do
            local limiter = of_keys[i + at - 1]
            limiter.kind.read(limiter, text or nil)
        end
    end
end

-- The limiter of a rule, for a key ("" where it has none); not read yet where it comes for the first time. nil: the rule is
-- gone, and limits nothing any more.
local function unread_limiter_of(rules, rule, key)
    local name = key == '' and rule or rule .. ':' .. key
    local limiter = limiters[name]
    if limiter then return limiter end
    local definition = rules[rule]
    local kind = definition and kinds[definition.kind]
    if not kind then return nil end
    if not definition.prefix then
        definition.prefix = 'rqxx:limit:' .. definition.kind .. ':'
        if kind.learn then kind.learn(definition) end
    end
    limiter = {name = name, key = definition.prefix .. name, rule = definition, kind = kind, changed = false, full_at = 0, used = 0}
    limiters[name] = limiter
    unread[#unread + 1] = limiter
    return limiter
end

local function limiter_of(rules, rule, key)
    local limiter = unread_limiter_of(rules, rule, key)
    if #unread > 0 then read_limiters() end
    return limiter
end

-- nil: `points` more may be used now. Else when they may (us), or -1: when somebody gives some back.
local function wait_of(limiter, points)
    return (pushed_back or read_pushed_back())[limiter.name] or limiter.kind.wait(limiter, points)
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

local changed = {}

local function use(limiter, points, member)
    limiter.kind.take(limiter, points, member)
    if not limiter.changed then
        limiter.changed = true
        changed[#changed + 1] = limiter
    end
end

local function store_limiters()
    for _, limiter in ipairs(changed) do
        if limiter.kind.store then limiter.kind.store(limiter) end
    end
end
