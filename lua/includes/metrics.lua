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

-- Adds what was measured to the buckets of the time `at` (seconds).
local function store_metrics(at)
    if metrics.finished + metrics.failed == 0 then return end
    for _, bucket in ipairs({{'m', 60, 172800}, {'h', 3600, 7776000}, {'d', 86400, 94608000}}) do
        local name, width, ttl = unpack(bucket)
        local key = 'rqxx:metrics:' .. name .. ':' .. (at - at % width)
        if metrics.finished > 0 then
            redis.pcall('HINCRBY', key, 'finished', metrics.finished)
            redis.pcall('HINCRBY', key, 'run_sum', metrics.run_sum)
        end
        if metrics.failed > 0 then redis.pcall('HINCRBY', key, 'failed', metrics.failed) end
        if metrics.waits > 0 then
            redis.pcall('HINCRBY', key, 'waits', metrics.waits)
            redis.pcall('HINCRBY', key, 'wait_sum', metrics.wait_sum)
        end
        for field, count in pairs(metrics.histogram) do redis.pcall('HINCRBY', key, field, count) end
        local run_min, run_max, wait_max = unpack(redis.pcall('HMGET', key, 'run_min', 'run_max', 'wait_max'))
        local function replace(field, value, old, better)
            if value and (not old or better(value, tonumber(old))) then redis.pcall('HSET', key, field, value) end
        end
        replace('run_min', metrics.run_min, run_min, function(a, b) return a < b end)
        replace('run_max', metrics.run_max, run_max, function(a, b) return a > b end)
        replace('wait_max', metrics.wait_max, wait_max, function(a, b) return a > b end)
        redis.pcall('EXPIRE', key, ttl)
    end
end
