-- Put failed, stopped or canceled jobs back on their queues.
-- ARGV: 1 "L" front | "R" back, 2 "1" dry run: nothing is written, 3 who asks or "", 4.. job ids
-- Returns: for each {code, status it had, 0}; code 0 no such job, 1 requeued, 2 refused: it is neither failed nor canceled
-- Dynamic keys: see includes/transitions.lua
-- Source: rq/registry.py BaseRegistry.requeue (RQ 2.10)
--- @include time
--- @include transitions
--- @include batches
--- @include requeueing
--- @include timeline

local dry = ARGV[2] == '1'
local answers, wrote = {}, dry
for i = 4, #ARGV do
    local id = ARGV[i]
    local key = job_key(id)
    local job = redis.pcall('HMGET', key, 'status', 'origin', 'ttl', 'data', 'group_id', 'rate_limit_key', 'rate_limit_concurrency')
    local status, origin = job[1], job[2]
    if job.err or not job[4] then
        answers[#answers + 1] = {0, '', 0}
    else
        local possible = origin and (status == 'failed' or status == 'stopped' or status == 'canceled')
        if possible and not dry then
            if not wrote then   -- the first write, see transitions
                wrote = true
                redis.call('SADD', 'rq:queues', 'rq:queue:' .. origin)
            end
            requeue_job(id, origin, status, job[3], job[5], ARGV[1] == 'L', job[6], job[7])
            note_event(id, 'requeued', {by = actor(ARGV[3]), details = 'it was ' .. status})
        end
        answers[#answers + 1] = {possible and 1 or 2, status or 'created', 0}
    end
end
store_batches()
return answers
