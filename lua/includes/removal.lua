-- Taking a job out of wherever it stands. Needs transitions.lua.

local not_on_a_queue = {started = true, finished = true, failed = true, stopped = true, deferred = true, scheduled = true,
    canceled = true}

-- Out of queue and registries; a running one loses its executions, so that its worker is told to stop.
local function remove_from_places(id, origin, status)
    -- Looking for it costs as much as the queue is long.
    if not not_on_a_queue[status] then attempt('LREM', 'rq:queue:' .. origin, 1, id) end
    attempt('LREM', 'rq:queue:' .. origin .. ':intermediate', 1, id)
    for _, registry in ipairs({'finished', 'failed', 'deferred', 'scheduled', 'canceled', 'ready'}) do
        attempt('ZREM', 'rq:' .. registry .. ':' .. origin, id)
    end
    local executions = attempt('ZRANGE', 'rq:executions:' .. id, 0, -1)
    for _, execution in ipairs(executions) do
        attempt('ZREM', 'rq:wip:' .. origin, id .. ':' .. execution)
        attempt('DEL', 'rq:execution:' .. id .. ':' .. execution)
    end
    attempt('DEL', 'rq:executions:' .. id)
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
