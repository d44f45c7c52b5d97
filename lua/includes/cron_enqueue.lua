-- Enqueues a job of a schedule. Needs time.lua, changes.lua.
-- Source: rq/queue.py Queue._enqueue_job (RQ 2.10); the history is that of RQ's main branch
local most_of_history, history_ttl = 1000, 31536000

-- The job's fields and values are ARGV from `first_field` on. Where a key is of another type, nothing is written.
local function enqueue_cron_job(id, job, queue, history, ttl, first_field)
    redis.call('LLEN', queue)
    redis.call('ZCARD', history)
    redis.call('SADD', 'rq:queues', queue)
    redis.call('HSET', job, unpack(ARGV, first_field))
    redis.call('HSET', job, 'created_at', now_iso, 'enqueued_at', now_iso)
    if ttl ~= '' then redis.call('EXPIRE', job, ttl) end
    redis.call('RPUSH', queue, id)
    redis.call('ZADD', history, now_float, id)
    redis.call('ZREMRANGEBYRANK', history, 0, -most_of_history - 1)
    redis.call('EXPIRE', history, history_ttl)
    note_change(id)
end
