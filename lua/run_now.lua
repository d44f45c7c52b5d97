-- Put scheduled jobs on their queues before their time.
-- ARGV: 1 "1" dry run: nothing is written, 2 who asks or "", 3.. job ids
-- Returns: for each {code, status it had, 0}; code 0 no such job, 1 enqueued, 2 refused: it is not scheduled, or it is
--       and cannot be put on its queue: that is no list, or a stock scheduler may be doing it just now
-- Dynamic keys: rq:scheduler-lock:<queue>, rq:scheduled:<queue>; see includes/transitions.lua
-- Source: rq/scheduler.py RQScheduler.enqueue_scheduled_jobs (RQ 2.10)
--- @include time
--- @include transitions
--- @include due
--- @include timeline

local answers = {}
for i = 3, #ARGV do
    local id = ARGV[i]
    local job = attempt('HMGET', job_key(id), 'status', 'origin', 'enqueue_at_front', 'enqueue_at_front_on_retry', 'ended_at',
        'ttl', 'rate_limit_key', 'rate_limit_concurrency')
    local status, origin = job[1], job[2]
    if job.err or not (status or origin) then
        answers[#answers + 1] = {0, '', 0}
    else
        local score = origin and tonumber(attempt('ZSCORE', 'rq:scheduled:' .. origin, id))
        -- `created` is a job that was saved and put into the registry by hand, which RQ runs.
        local scheduled = origin and origin ~= '' and (status == 'scheduled' or (status == 'created' and score))
        if not scheduled or not can_push(origin) or has_stock_scheduler(origin, score) then
            answers[#answers + 1] = {2, status or 'created', 0}
        else
            if ARGV[1] ~= '1' then
                local at_front = is_for_front(job[3], job[4], job[5])
                redis.call('SADD', 'rq:queues', 'rq:queue:' .. origin)   -- the first write, see transitions
                attempt('ZREM', 'rq:scheduled:' .. origin, id)
                -- One with a rate limit is told by its hash which end it is for.
                if at_front then attempt('HSET', job_key(id), 'enqueue_at_front', '1') end
                let_go(id, origin, at_front, job[6], job[7], job[8])
                note_event(id, 'run_now', {by = actor(ARGV[2])})
            end
            answers[#answers + 1] = {1, status, 0}
        end
    end
end
store_changes()
return answers
