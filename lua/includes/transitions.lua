-- The pieces of which every state change of a job is made. Needs time.lua.
-- Dynamic keys: all of RQ's keys of a job are built from its id and queue (RQ has no hash tags, so it
-- cannot run on Redis Cluster either).

local function job_key(id) return 'rq:job:' .. id end

--- @include changes

-- Numbers in a job's hash may have been written by anybody. A script that stopped half-way because Redis
-- refused one would leave half a transition. nil: not a number.
local function whole(text, low, high)
    local n = tonumber(text)
    if not n or n ~= n then return nil end
    return math.floor(math.min(math.max(n, low), high))
end
local function ttl_of(text) return whole(text, -1, 100000000000) end
local function count_of(text) return whole(text, 0, 1000000000) or 0 end

-- Kept, because Redis turns a number into text on each call.
local texts = {}
local function text_of(n)
    local text = texts[n]
    if not text then
        text = string.format('%d', n)
        texts[n] = text
    end
    return text
end

-- A script's first write is a redis.call: a Redis that refuses writes (read-only, full, broken disk) stops it
-- before anything has changed, and refuses none after that. From then on only a key of another type can fail,
-- and a piece that is missing does less harm than half a transition.
local attempt = redis.pcall

-- Counts in the job's hash, from 1 where something else stands.
local function count_up(id, field)
    local count = attempt('HINCRBY', job_key(id), field, 1)
    if type(count) == 'number' then return count end
    attempt('HSET', job_key(id), field, 1)
    return 1
end

-- The lifetime of a job's hash and the two sets beside it. nil or -1: as it is.
local function expire_job(id, ttl, has_dependencies)
    if not ttl or ttl <= 0 then return end
    ttl = text_of(ttl)
    attempt('EXPIRE', job_key(id), ttl)
    attempt('EXPIRE', 'rq:job:' .. id .. ':dependents', ttl)
    if has_dependencies then attempt('EXPIRE', 'rq:job::' .. id .. ':dependencies', ttl) end
end

local function push(queue, id, at_front)
    note_change(id)
    attempt(at_front and 'LPUSH' or 'RPUSH', 'rq:queue:' .. queue, id)
    -- Where jobs are sorted, see lanes.lua, the front of the list is not that of the queue.
    if at_front and attempt('EXISTS', 'rqxx:numbers:' .. queue) == 1 then attempt('SADD', 'rqxx:front:' .. queue, id) end
end

--- @include rate_limit

-- Removes what an execution left: its hash, its place in the job's executions.
local function end_execution(id, execution)
    attempt('DEL', 'rq:execution:' .. id .. ':' .. execution)
    attempt('ZREM', 'rq:executions:' .. id, execution)
end

-- Whether an execution of a job holds its place in the started registry. Records alone do not count: RQ leaves those of
-- jobs that it cancels or judges abandoned until they expire.
local function is_held(id, origin)
    for _, execution in ipairs(attempt('ZRANGE', 'rq:executions:' .. id, 0, -1)) do
        if attempt('ZSCORE', 'rq:wip:' .. origin, id .. ':' .. execution) then return true end
    end
    return false
end

-- Adds an entry to the results stream. `fields` are further field-value pairs.
local function add_result(id, ttl, ...)
    local key = 'rq:results:' .. id
    if attempt('XADD', key, 'MAXLEN', '~', '10', '*', ...).err then   -- of another type
        attempt('DEL', key)
        attempt('XADD', key, 'MAXLEN', '~', '10', '*', ...)
    end
    if ttl == -1 then attempt('PERSIST', key) else attempt('EXPIRE', key, text_of(ttl)) end
end

-- Whether a job in this status no longer holds back those that depend on it.
-- Source: rq/job.py Job.dependencies_are_met (RQ 2.10), which also counts a missing job as met.
local function lets_pass(status, allows_failure)
    return not status or status == 'finished' or (status == 'failed' and allows_failure)
end

-- Queues the children of a job, as far as nothing else holds them back.
-- `final`: the status in which it ended; nil: it no longer holds anything back, whatever its status.
-- Returns how many children it has, and how many were queued.
-- Source: rq/queue.py Queue.enqueue_dependents (RQ 2.10).
local function release_dependents(id, final)
    local dependents = 'rq:job:' .. id .. ':dependents'
    local children = attempt('SMEMBERS', dependents)
    local released = 0
    for _, child in ipairs(children) do
        local key = job_key(child)
        local status, origin, allow, front, ttl, limit, concurrency = unpack(attempt('HMGET', key, 'status', 'origin',
            'allow_dependency_failures', 'enqueue_at_front', 'ttl', 'rate_limit_key', 'rate_limit_concurrency'))
        local ready = status == 'deferred' and origin and lets_pass(final, allow == '1')
        local parents = ready and attempt('SMEMBERS', 'rq:job::' .. child .. ':dependencies') or {}
        for _, other in ipairs(parents) do
            if other ~= id and not lets_pass(attempt('HGET', job_key(other), 'status') or nil, allow == '1') then
                ready = false
                break
            end
        end
        if ready then
            attempt('ZREM', 'rq:deferred:' .. origin, child)
            let_go(child, origin, front == '1', ttl, limit, concurrency)
            attempt('SREM', dependents, child)
            -- RQ would queue it once more after another parent, one that had failed and is requeued.
            for _, other in ipairs(parents) do
                if other ~= id then attempt('SREM', 'rq:job:' .. other .. ':dependents', child) end
            end
            released = released + 1
        elseif status and status ~= 'deferred' and status ~= 'canceled' then
            attempt('SREM', dependents, child)   -- it went on without waiting
        end
    end
    return #children, released
end

-- Out of the lists of those who wait for a job, kept beside the jobs that it depends on.
local function forget_dependencies(id)
    for _, parent in ipairs(attempt('SMEMBERS', 'rq:job::' .. id .. ':dependencies')) do
        attempt('SREM', 'rq:job:' .. parent .. ':dependents', id)
    end
end

-- Ends of jobs that are in groups: batches.lua counts those of batches.
local noted_ends = {}

-- `outcome`: finished, failed, stopped, canceled, or deleted before it had ended.
local function note_end(group, id, outcome)
    if group and group ~= '' then noted_ends[#noted_ends + 1] = {group, id, outcome} end
end

-- Deletes all that RQ keeps of a job but its results. Source: rq/job.py Job.delete (RQ 2.10).
local function delete_job(id, group)
    note_change(id)
    local outputs = 'rqxx:output:' .. id
    for _, execution in ipairs(attempt('LRANGE', outputs, 0, -1)) do attempt('DEL', outputs .. ':' .. execution) end
    attempt('DEL', outputs, job_key(id), 'rq:job:' .. id .. ':dependents', 'rq:job::' .. id .. ':dependencies')
    if group and group ~= '' then
        attempt('SREM', 'rq:group:' .. group, id)
        if attempt('EXISTS', 'rq:group:' .. group) == 0 then attempt('SREM', 'rq:groups', group) end
    end
end

local default_failure_ttl = 31536000   -- RQ's: a year

-- Ends a job that did not succeed: hash, registry, result entry, dependents.
-- `status`: failed or stopped. `result`: fields of the result entry, its type first.
-- Returns for how long it is kept.
local function fail_job(id, origin, status, failure_ttl, group, result)
    local ttl = ttl_of(failure_ttl) or default_failure_ttl
    note_change(id)
    note_end(group, id, status)
    if ttl == 0 then
        attempt('HSET', job_key(id), 'status', status)
        release_dependents(id, status)
        delete_job(id, group)
        return 0
    end
    attempt('HSET', job_key(id), 'status', status, 'ended_at', now_iso, 'last_heartbeat', now_iso)
    attempt('ZADD', 'rq:failed:' .. origin, ttl == -1 and -1 or now + ttl, id)
    add_result(id, ttl, unpack(result))
    release_dependents(id, status)
    if ttl == -1 then attempt('PERSIST', job_key(id)) else expire_job(id, ttl, true) end
    return ttl
end

-- Which wait comes before the next retry. Source: rq/job.py Job.get_retry_interval (RQ 2.10).
local function retry_interval(intervals, retries_left)
    if not intervals or intervals == '' then return 0 end
    local ok, list = pcall(cjson.decode, intervals)
    if not ok or type(list) ~= 'table' or #list == 0 then return 0 end
    return count_of(list[math.max(#list - retries_left, 0) + 1])
end

-- Puts a job that has run back, at once or after `wait` seconds. Further arguments: fields to write with it.
local function run_again(id, origin, wait, at_front, ttl, ...)
    note_change(id)
    attempt('SADD', 'rq:queues', 'rq:queue:' .. origin)
    if wait > 0 then
        attempt('HSET', job_key(id), 'status', 'scheduled', 'ended_at', now_iso, ...)
        attempt('ZADD', 'rq:scheduled:' .. origin, now + wait, id)
    else
        attempt('HSET', job_key(id), 'status', 'queued', 'ended_at', now_iso, 'enqueued_at', now_iso, ...)
        push(origin, id, at_front)
    end
    expire_job(id, ttl_of(ttl), true)
end

-- Puts a failed job back, using one of its retries.
-- Returns the wait in seconds, the number of this retry, and how many there are in all.
local function retry_job(id, origin, retries_left, intervals, at_front, ttl)
    local wait = retry_interval(intervals, retries_left)
    local retry = count_up(id, 'rqxx_retries')
    run_again(id, origin, wait, at_front == '1', ttl, 'retries_left', retries_left - 1)
    return wait, retry, retry + retries_left - 1
end

-- Puts a started job back to the front of its queue; no attempt is used.
local function return_job(id, origin)
    attempt('HSET', job_key(id), 'status', 'queued', 'started_at', '', 'worker_name', '')
    push(origin, id, true)
end

-- Puts back a job that was claimed though its worker never heard of it: the reply was lost.
-- Returns whether there was something to put back.
local function return_orphan(member)
    local id, execution = string.match(member, '^([%w_-]+):(.*)$')
    if not id then return false end
    local status, origin = unpack(attempt('HMGET', job_key(id), 'status', 'origin'))
    end_execution(id, execution)
    if not origin or attempt('ZREM', 'rq:wip:' .. origin, member) ~= 1 or status ~= 'started' then return false end
    return_job(id, origin)
    return true
end
