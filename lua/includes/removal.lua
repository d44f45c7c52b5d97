-- Taking a job out of wherever it stands. Needs transitions.lua.

local not_on_a_queue = {started = true, finished = true, failed = true, stopped = true, deferred = true, scheduled = true,
    canceled = true, rate_limited = true}

local leaving = {}   -- queue list -> ids to be taken off it

-- Takes the ids of `leaving` off their queues. Called once, at the end of a script.
local function leave_queues()
    for list, ids in pairs(leaving) do
        local places = {}
        -- Each LREM passes over all that stands before its id. Many ids mostly stand close together: they are
        -- marked where they are, and the marks are removed in one pass.
        local first = #ids > 4 and attempt('LPOS', list, ids[1])
        if type(first) == 'number' then
            for i, id in ipairs(attempt('LRANGE', list, first, first + 4 * #ids)) do places[id] = first + i - 1 end
        end
        local marked, mark = 0, '\0'
        local elsewhere = {}
        for _, id in ipairs(ids) do
            if places[id] then
                attempt('LSET', list, places[id], mark)
                places[id] = nil
                marked = marked + 1
            else
                elsewhere[#elsewhere + 1] = id
            end
        end
        for _, id in ipairs(elsewhere) do attempt('LREM', list, 1, id) end   -- Moves what is behind them.
        if marked > 0 then attempt('LREM', list, marked, mark) end
    end
end

-- Out of queue (with `leave_queues`) and registries; a running one loses its executions, so that its worker is told to stop.
-- `limit`: its rate limit's key, if it has one. Then it stays known that it runs, for which it needs its slot.
local function remove_from_places(id, origin, status, limit)
    if not not_on_a_queue[status] then
        local list = 'rq:queue:' .. origin
        leaving[list] = leaving[list] or {}
        table.insert(leaving[list], id)
    end
    attempt('LREM', 'rq:queue:' .. origin .. ':intermediate', 1, id)
    for _, registry in ipairs({'finished', 'failed', 'deferred', 'scheduled', 'canceled', 'ready'}) do
        attempt('ZREM', 'rq:' .. registry .. ':' .. origin, id)
    end
    local executions = attempt('ZRANGE', 'rq:executions:' .. id, 0, -1)
    for _, execution in ipairs(executions) do
        attempt('ZREM', 'rq:wip:' .. origin, id .. ':' .. execution)
        if not limit then attempt('DEL', 'rq:execution:' .. id .. ':' .. execution) end
    end
    if not limit then attempt('DEL', 'rq:executions:' .. id) end
end

-- Moves a job to the canceled registry. `limit`: its rate limit's key, if it has one.
local function cancel_job(id, status, origin, group, limit)
    note_change(id)
    attempt('HSET', job_key(id), 'status', 'canceled')
    remove_from_places(id, origin, status, limit)
    attempt('ZADD', 'rq:canceled:' .. origin, now, id)
    leave_rate_limit(id, limit)
    note_end(group, id, 'canceled')
end

-- The jobs that wait for a job, those that wait for them, and so on: nearest first, each once, at most `limit`.
local function waiting_for(id, limit)
    local found, seen = {}, {[id] = true}
    local at, parent = 0, id
    while parent and #found < limit do
        for _, child in ipairs(attempt('SMEMBERS', 'rq:job:' .. parent .. ':dependents')) do
            if not seen[child] and attempt('HGET', job_key(child), 'status') == 'deferred' then
                seen[child] = true
                found[#found + 1] = child
            end
        end
        at = at + 1
        parent = found[at]
    end
    return found
end

-- How many jobs wait for this one and nothing more.
local function deferred_children(id)
    local count = 0
    for _, child in ipairs(attempt('SMEMBERS', 'rq:job:' .. id .. ':dependents')) do
        if attempt('HGET', job_key(child), 'status') == 'deferred' then count = count + 1 end
    end
    return count
end
