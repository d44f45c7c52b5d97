-- Putting a failed, stopped or canceled job back on its queue. Needs transitions.lua, batches.lua.
-- Source: rq/registry.py BaseRegistry.requeue (RQ 2.10)
local function requeue_job(id, origin, status, ttl, group, at_front, limit, concurrency)
    local key = job_key(id)
    -- Its status says that it is not on a queue; a place in the registry may have been lost.
    attempt('ZREM', 'rq:' .. (status == 'canceled' and 'canceled' or 'failed') .. ':' .. origin, id)
    attempt('SADD', 'rq:queues', 'rq:queue:' .. origin)
    -- "exc_info" as RQ leaves it: zlib of nothing.
    attempt('HSET', key, 'started_at', '', 'ended_at', '', 'exc_info', '\120\156\3\0\0\0\0\1')
    attempt('HDEL', key, 'rqxx_recoveries')
    -- The time for which a failed job is kept must not end one that waits.
    attempt('PERSIST', key)
    attempt('PERSIST', 'rq:job:' .. id .. ':dependents')
    attempt('PERSIST', 'rq:job::' .. id .. ':dependencies')
    -- One with a rate limit is told by its hash which end it is for.
    if has_rate_limit(limit, concurrency) then attempt('HSET', key, 'enqueue_at_front', at_front and 1 or 0) end
    let_go(id, origin, at_front, ttl, limit, concurrency)
    note_return(group, id)
end
