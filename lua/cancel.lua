-- Cancel jobs: each leaves queue and registries for the canceled registry, and its dependents follow or are released.
-- ARGV: 1 dependents: "leave" | "enqueue" | "cascade", 2 "1" out of the lists of who waits for what it depends on,
--       3 "1" dry run: nothing is written, 4 who asks or "", 5.. job ids
-- Returns: for each {code, status it had, dependents concerned}; code 0 no such job, 1 canceled, 2 it was canceled already
-- Dynamic keys: see includes/transitions.lua and includes/removal.lua
-- Source: rq/job.py Job.cancel (RQ 2.10)
--- @include time
--- @include transitions
--- @include removal
--- @include batches
--- @include timeline

local dependents, forget, dry = ARGV[1], ARGV[2] == '1', ARGV[3] == '1'
local wrote = dry

local function cancel(id, status, origin, group, limit)
    if not wrote then   -- the first write, see transitions
        wrote = true
        redis.call('HSET', job_key(id), 'status', 'canceled')
    end
    cancel_job(id, status, origin, group, limit)
    note_event(id, 'canceled', {by = actor(ARGV[4])})
    if forget then forget_dependencies(id) end
end

local answers = {}
for i = 5, #ARGV do
    local id = ARGV[i]
    local job = redis.pcall('HMGET', job_key(id), 'status', 'origin', 'data', 'group_id', 'rate_limit_key')
    local status, origin = job[1] or 'created', job[2] or ''
    if job.err or not (job[1] or job[3]) then
        answers[#answers + 1] = {0, '', 0}
    elseif status == 'canceled' then
        answers[#answers + 1] = {2, status, 0}
    else
        local concerned = dependents == 'cascade' and waiting_for(id, 10000) or {}
        local count = dependents == 'cascade' and #concerned or deferred_children(id)
        if not dry then
            cancel(id, status, origin, job[4], job[5])
            for _, child in ipairs(concerned) do
                local child_origin, group = unpack(attempt('HMGET', job_key(child), 'origin', 'group_id'))
                cancel(child, 'deferred', child_origin or '', group)
            end
            if dependents == 'enqueue' then
                local _, released = release_dependents(id, nil)
                count = released
            end
        end
        answers[#answers + 1] = {1, status, count}
    end
end
leave_queues()
store_batches()
return answers
