-- Put failed, stopped or canceled jobs back on their queues.
-- ARGV: 1 "L" front | "R" back, 2 "1" dry run: nothing is written, 3.. job ids
-- Returns: for each {code, status it had, 0}; code 0 no such job, 1 requeued, 2 refused: it is neither failed nor canceled
-- Dynamic keys: see includes/transitions.lua
-- Source: rq/registry.py BaseRegistry.requeue (RQ 2.10)
--- @include time
--- @include transitions

local dry = ARGV[2] == '1'
local answers, wrote = {}, dry
for i = 3, #ARGV do
    local id = ARGV[i]
    local key = job_key(id)
    local job = redis.pcall('HMGET', key, 'status', 'origin', 'ttl', 'data', 'rate_limit_key', 'rate_limit_concurrency')
    local status, origin = job[1], job[2]
    if job.err or not job[4] then
        answers[#answers + 1] = {0, '', 0}
    else
        local registry = 'rq:' .. (status == 'canceled' and 'canceled' or 'failed') .. ':' .. (origin or '')
        local possible = origin and (status == 'failed' or status == 'stopped' or status == 'canceled')
        if possible and not dry then
            if not wrote then   -- the first write, see transitions
                wrote = true
                redis.call('SADD', 'rq:queues', 'rq:queue:' .. origin)
            end
            -- Its status says that it is not on a queue; a place in the registry may have been lost.
            attempt('ZREM', registry, id)
            attempt('SADD', 'rq:queues', 'rq:queue:' .. origin)
            -- "exc_info" as RQ leaves it: zlib of nothing.
            attempt('HSET', key, 'started_at', '', 'ended_at', '', 'exc_info', '\120\156\3\0\0\0\0\1')
            attempt('HDEL', key, 'rqxx_recoveries')
            -- The time for which a failed job is kept must not end one that waits.
            attempt('PERSIST', key)
            attempt('PERSIST', 'rq:job:' .. id .. ':dependents')
            attempt('PERSIST', 'rq:job::' .. id .. ':dependencies')
            -- One with a rate limit is told by its hash which end it is for.
            if has_rate_limit(job[5], job[6]) then attempt('HSET', key, 'enqueue_at_front', ARGV[1] == 'L' and 1 or 0) end
            let_go(id, origin, ARGV[1] == 'L', job[3], job[5], job[6])
        end
        answers[#answers + 1] = {possible and 1 or 2, status or 'created', 0}
    end
end
return answers
