-- Performance figures in time buckets of a minute, an hour and a day. Needs time.lua.
--
-- One hash per bucket, `rqxx:metrics:<m|h|d>:<start>`: counts `finished`, `failed`; of durations (finished
-- jobs) and queue times (jobs that started) the sums, extremes and a histogram, in microseconds.
-- Histogram bucket i holds values from 100 us * 1.05^i up.
local metrics = {finished = 0, failed = 0, run_sum = 0, wait_sum = 0, waits = 0, histogram = {}}

local function histogram_field(prefix, us)
    return prefix .. math.floor(math.log(math.max(us, 100) / 100) / 0.04879016416943205)
end

local function count_in_histogram(prefix, us)
    local field = histogram_field(prefix, us)
    metrics.histogram[field] = (metrics.histogram[field] or 0) + 1
end

-- Notes one ended job. `run_us` nil, `wait_us` < 0 where unknown.
local function measure(outcome, run_us, wait_us)
    metrics[outcome] = metrics[outcome] + 1
    if outcome == 'finished' and run_us then
        run_us = math.max(run_us, 0)
        metrics.run_sum = metrics.run_sum + run_us
        metrics.run_min = math.min(metrics.run_min or run_us, run_us)
        metrics.run_max = math.max(metrics.run_max or run_us, run_us)
        count_in_histogram('r', run_us)
    end
    if wait_us >= 0 then
        metrics.waits = metrics.waits + 1
        metrics.wait_sum = metrics.wait_sum + wait_us
        metrics.wait_max = math.max(metrics.wait_max or 0, wait_us)
        count_in_histogram('w', wait_us)
    end
end

-- How a field of a bucket changes: added to, or replaced by what is less or greater.
local function add(old, new) return old + new end
local combine = {run_min = math.min, run_max = math.max, wait_max = math.max}

-- Adds what was measured to the buckets of the time `at` (seconds). All fields of a bucket are read with one command
-- and written with another: dozens of HINCRBY would be a tenth of what a batch costs.
local function store_metrics(at)
    if metrics.finished + metrics.failed == 0 then return end
    local fields, values = {}, {}
    local function put(field, value)
        if value and (value ~= 0 or combine[field]) then
            fields[#fields + 1] = field
            values[#values + 1] = value
        end
    end
    for _, field in ipairs({'finished', 'failed', 'run_sum', 'waits', 'wait_sum', 'run_min', 'run_max', 'wait_max'}) do
        put(field, metrics[field])
    end
    for field, count in pairs(metrics.histogram) do put(field, count) end
    for _, bucket in ipairs({{'m', 60, '172800'}, {'h', 3600, '7776000'}, {'d', 86400, '94608000'}}) do
        local name, width, ttl = unpack(bucket)
        local key = 'rqxx:metrics:' .. name .. ':' .. (at - at % width)
        local old = redis.pcall('HMGET', key, unpack(fields))
        local written = {}
        for i, field in ipairs(fields) do
            local before = tonumber(old[i] or nil)
            written[2 * i - 1] = field
            written[2 * i] = string.format('%.0f', before and (combine[field] or add)(before, values[i]) or values[i])
        end
        if not old.err then
            redis.pcall('HSET', key, unpack(written))
            redis.pcall('EXPIRE', key, ttl)
        end
    end
end
