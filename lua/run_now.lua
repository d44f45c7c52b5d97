-- Put scheduled jobs on their queues before their time.
-- ARGV: 1 "1" dry run: nothing is written, 2 who asks or "", 3.. job ids
-- Returns: for each {code, status it had, 0}; code 0 no such job, 1 enqueued, 2 refused: it is not scheduled
-- Dynamic keys: see includes/transitions.lua
-- Source: rq/scheduler.py RQScheduler.enqueue_scheduled_jobs (RQ 2.10)
--- @include time
--- @include transitions
--- @include timeline

local answers = {}
for i = 3, #ARGV do
    local id = ARGV[i]
    local job = redis.pcall('HMGET', job_key(id), 'status', 'origin', 'enqueue_at_front', 'ttl', 'rate_limit_key',
        'rate_limit_concurrency')
    local status, origin = job[1], job[2]
    if job.err or not (status or origin) then
        answers[#answers + 1] = {0, '', 0}
    elseif status ~= 'scheduled' or not origin then
        answers[#answers + 1] = {2, status or 'created', 0}
    else
        if ARGV[1] ~= '1' then
            redis.call('SADD', 'rq:queues', 'rq:queue:' .. origin)   -- the first write, see transitions
            attempt('ZREM', 'rq:scheduled:' .. origin, id)
            let_go(id, origin, job[3] == '1', job[4], job[5], job[6])
            note_event(id, 'run_now', {by = actor(ARGV[2])})
        end
        answers[#answers + 1] = {1, status, 0}
    end
end
return answers
