-- Delete jobs and all that is kept of them. A running one is not brought back by its worker, which is told to stop.
-- ARGV: 1 dependents: "leave" | "enqueue" | "cascade", 2 "1" dry run: nothing is written, 3.. job ids
-- Returns: for each {code, status it had, dependents concerned}; code 0 no such job, 1 deleted
-- Dynamic keys: see includes/transitions.lua and includes/removal.lua
-- Source: rq/job.py Job.delete (RQ 2.10)
--- @include time
--- @include transitions
--- @include removal
--- @include batches

local dependents, dry = ARGV[1], ARGV[2] == '1'
local wrote = dry

local function delete(id, status, origin, group, limit)
    if not wrote then   -- the first write, see transitions
        wrote = true
        redis.call('DEL', 'rq:results:' .. id)
    end
    forget_dependencies(id)
    remove_from_places(id, origin, status, limit)
    attempt('DEL', 'rq:results:' .. id)
    note_end(group, id, has_ended[status] and status or 'deleted')
    delete_job(id, group)
    leave_rate_limit(id, limit)
end

local answers = {}
for i = 3, #ARGV do
    local id = ARGV[i]
    local job = redis.pcall('HMGET', job_key(id), 'status', 'origin', 'group_id', 'rate_limit_key')
    if job.err or attempt('EXISTS', job_key(id)) == 0 then
        answers[#answers + 1] = {0, '', 0}
    else
        local concerned = dependents == 'cascade' and waiting_for(id, 10000) or {}
        local count = dependents == 'cascade' and #concerned or deferred_children(id)
        if not dry then
            for _, child in ipairs(concerned) do
                local origin, group = unpack(attempt('HMGET', job_key(child), 'origin', 'group_id'))
                delete(child, 'deferred', origin or '', group)
            end
            if dependents == 'enqueue' then
                local _, released = release_dependents(id, nil)
                count = released
            end
            delete(id, job[1] or 'created', job[2] or '', job[3], job[4])
        end
        answers[#answers + 1] = {1, job[1] or 'created', count}
    end
end
leave_queues()
store_batches()
return answers
