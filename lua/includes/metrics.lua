-- Performance figures in time buckets of a minute, an hour and a day. Needs time.lua.
--
-- One hash per bucket, `rqxx:metrics:<m|h|d>:<start>`: counts `finished`, `failed`; of durations (finished jobs) and queue
-- times (jobs that started) the sums, extremes and a histogram, in microseconds. What is measured goes into
-- `rqxx:metrics:now` alone, with the start of its minute in `minute`, and into the buckets when the next minute begins.
-- `rqxx:metrics:total` is the sum of all minutes: with `now`, figures that only grow.
-- Histogram bucket i holds values from 100 us * 1.05^i up.
local metrics = {finished = 0, failed = 0, run_sum = 0, wait_sum = 0, waits = 0}
local metrics_now = 'rqxx:metrics:now'
local run_histogram, wait_histogram = {}, {}

local function histogram_bucket(us)
    return math.floor(math.log(math.max(us, 100) / 100) / 0.04879016416943205)
end

local function count_in(histogram, us)
    local bucket = histogram_bucket(us)
    histogram[bucket] = (histogram[bucket] or 0) + 1
end

-- Notes one ended job. `run_us` nil, `wait_us` < 0 where unknown.
local function measure(outcome, run_us, wait_us)
    metrics[outcome] = metrics[outcome] + 1
    if outcome == 'finished' and run_us then
        run_us = math.max(run_us, 0)
        metrics.run_sum = metrics.run_sum + run_us
        metrics.run_min = math.min(metrics.run_min or run_us, run_us)
        metrics.run_max = math.max(metrics.run_max or run_us, run_us)
        count_in(run_histogram, run_us)
    end
    if wait_us >= 0 then
        metrics.waits = metrics.waits + 1
        metrics.wait_sum = metrics.wait_sum + wait_us
        metrics.wait_max = math.max(metrics.wait_max or 0, wait_us)
        count_in(wait_histogram, wait_us)
    end
end

-- How a field of a bucket changes: added to, or replaced by what is less or greater.
local function add(old, new) return old + new end
local combine = {run_min = math.min, run_max = math.max, wait_max = math.max, minute = math.max}

-- Adds to the fields of a bucket, all read with one command and written with another: dozens of HINCRBY would be a
-- tenth of what a batch costs. `old`: the values that stand there.
local function add_to_bucket(key, fields, values, old)
    local written = {}
    for i, field in ipairs(fields) do
        local before, value = tonumber(old[i] or nil), values[i]
        written[2 * i - 1] = field
        written[2 * i] = string.format('%d', before and (combine[field] or add)(before, value) or value)
    end
    redis.pcall('HSET', key, unpack(written))
end

-- Puts the minute that has gone by, with its fields, into the buckets that are kept.
local function close_minute(minute)
    local flat, fields, values = redis.pcall('HGETALL', metrics_now), {}, {}
    for i = 1, #flat, 2 do
        local value = tonumber(flat[i + 1])
        if value and flat[i] ~= 'minute' then
            fields[#fields + 1] = flat[i]
            values[#values + 1] = value
        end
    end
    redis.pcall('DEL', metrics_now)
    if #fields == 0 then return end
    local function close_into(key, ttl)
        local old = redis.pcall('HMGET', key, unpack(fields))
        if old.err then return end
        add_to_bucket(key, fields, values, old)
        if ttl then redis.pcall('EXPIRE', key, ttl) end
    end
    for _, bucket in ipairs({{'m', 60, '172800'}, {'h', 3600, '7776000'}, {'d', 86400, '94608000'}}) do
        local name, width, ttl = unpack(bucket)
        close_into('rqxx:metrics:' .. name .. ':' .. (minute - minute % width), ttl)
    end
    close_into('rqxx:metrics:total')
end

-- Adds what was measured at the time `at` (seconds).
local function store_metrics(at)
    if metrics.finished + metrics.failed == 0 then return end
    local minute = at - at % 60
    local fields, values = {'minute'}, {minute}
    local function put(field, value)
        if value and (value ~= 0 or combine[field]) then
            fields[#fields + 1] = field
            values[#values + 1] = value
        end
    end
    for _, field in ipairs({'finished', 'failed', 'run_sum', 'waits', 'wait_sum', 'run_min', 'run_max', 'wait_max'}) do
        put(field, metrics[field])
    end
    for bucket, count in pairs(run_histogram) do put('r' .. bucket, count) end
    for bucket, count in pairs(wait_histogram) do put('w' .. bucket, count) end
    local old = redis.pcall('HMGET', metrics_now, unpack(fields))
    local before = tonumber(old[1] or nil)
    if before ~= minute then
        if before then close_minute(before) else redis.pcall('DEL', metrics_now) end
        old = {}
    end
    add_to_bucket(metrics_now, fields, values, old)
end
