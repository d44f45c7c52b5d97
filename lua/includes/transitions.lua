-- The pieces of which every state change of a job is made. Needs time.lua.
-- Dynamic keys: all of RQ's keys of a job are built from its id and queue (RQ has no hash tags, so it
-- cannot run on Redis Cluster either).

local function job_key(id) return 'rq:job:' .. id end

-- The lifetime of a job's hash and the two sets beside it. nil: leave as it is.
local function expire_job(id, ttl, has_dependencies)
    redis.call('EXPIRE', job_key(id), ttl)
    redis.call('EXPIRE', 'rq:job:' .. id .. ':dependents', ttl)
    if has_dependencies then redis.call('EXPIRE', 'rq:job::' .. id .. ':dependencies', ttl) end
end

local function push(queue, id, at_front)
    redis.call(at_front and 'LPUSH' or 'RPUSH', 'rq:queue:' .. queue, id)
end

-- Removes what an execution left: its hash, its place in the job's executions.
local function end_execution(id, execution)
    redis.call('DEL', 'rq:execution:' .. id .. ':' .. execution)
    redis.call('ZREM', 'rq:executions:' .. id, execution)
end

-- Adds an entry to the results stream. `fields` are further field-value pairs.
local function add_result(id, ttl, ...)
    local key = 'rq:results:' .. id
    redis.call('XADD', key, 'MAXLEN', '~', 10, '*', ...)
    if ttl == -1 then redis.call('PERSIST', key) else redis.call('EXPIRE', key, ttl) end
end

-- Queues the children of a job that has just ended, as far as nothing else holds them back.
-- A missing dependency counts as met. Source: rq/queue.py Queue.enqueue_dependents (RQ 2.10).
local function release_dependents(id, final)
    local dependents = 'rq:job:' .. id .. ':dependents'
    local children = redis.call('SMEMBERS', dependents)
    for _, child in ipairs(children) do
        local key = job_key(child)
        local status, origin, allow, front, ttl = unpack(redis.call('HMGET', key,
            'status', 'origin', 'allow_dependency_failures', 'enqueue_at_front', 'ttl'))
        local function met(word) return word == 'finished' or (word == 'failed' and allow == '1') end
        local ready = status == 'deferred' and origin and met(final)
        if ready then
            for _, other in ipairs(redis.call('SMEMBERS', 'rq:job::' .. child .. ':dependencies')) do
                if other ~= id then
                    local word = redis.call('HGET', job_key(other), 'status')
                    if word and not met(word) then ready = false break end
                end
            end
        end
        if ready then
            redis.call('ZREM', 'rq:deferred:' .. origin, child)
            redis.call('HSET', key, 'status', 'queued', 'enqueued_at', now_iso)
            ttl = tonumber(ttl)
            if ttl then expire_job(child, ttl, true) end
            push(origin, child, front == '1')
            redis.call('SREM', dependents, child)
        end
    end
    return #children
end

-- Deletes all that RQ keeps of a job but its results. Source: rq/job.py Job.delete (RQ 2.10).
local function delete_job(id, group)
    redis.call('DEL', job_key(id), 'rq:job:' .. id .. ':dependents', 'rq:job::' .. id .. ':dependencies')
    if group and group ~= '' then redis.call('SREM', 'rq:group:' .. group, id) end
end

local default_failure_ttl = 31536000   -- RQ's: a year

-- Ends a job as failed: hash, registry, result entry, dependents.
-- `worker` may be empty (abandoned); `execution` may be nil.
local function fail_job(id, origin, failure_ttl, exc_string, worker, execution, started, group)
    local ttl = tonumber(failure_ttl) or default_failure_ttl
    if ttl == 0 then
        redis.call('HSET', job_key(id), 'status', 'failed')
        release_dependents(id, 'failed')
        delete_job(id, group)
        return
    end
    redis.call('HSET', job_key(id), 'status', 'failed', 'ended_at', now_iso, 'last_heartbeat', now_iso)
    redis.call('ZADD', 'rq:failed:' .. origin, ttl == -1 and -1 or now + ttl, id)
    if execution then
        add_result(id, ttl, 'type', 2, 'worker_name', worker, 'exc_string', exc_string,
            'execution_id', execution, 'execution_started_at', started, 'execution_ended_at', now_float)
    else
        add_result(id, ttl, 'type', 2, 'worker_name', worker, 'exc_string', exc_string)
    end
    release_dependents(id, 'failed')
    if ttl == -1 then redis.call('PERSIST', job_key(id)) else expire_job(id, ttl, true) end
end

-- Which wait comes before the next retry. Source: rq/job.py Job.get_retry_interval (RQ 2.10).
local function retry_interval(intervals, retries_left)
    if not intervals or intervals == '' then return 0 end
    local ok, list = pcall(cjson.decode, intervals)
    if not ok or type(list) ~= 'table' or #list == 0 then return 0 end
    return tonumber(list[math.max(#list - retries_left, 0) + 1]) or 0
end

-- Puts a failed job back, at once or later, using one of its retries.
-- Returns the wait in seconds, the number of this retry, and how many there are in all.
local function retry_job(id, origin, retries_left, intervals, at_front, ttl)
    local wait = retry_interval(intervals, retries_left)
    local key = job_key(id)
    local attempt = redis.call('HINCRBY', key, 'rqxx_retries', 1)
    redis.call('SADD', 'rq:queues', 'rq:queue:' .. origin)
    if wait > 0 then
        redis.call('HSET', key, 'status', 'scheduled', 'retries_left', retries_left - 1, 'ended_at', now_iso)
        redis.call('ZADD', 'rq:scheduled:' .. origin, now + wait, id)
    else
        redis.call('HSET', key, 'status', 'queued', 'retries_left', retries_left - 1, 'ended_at', now_iso,
            'enqueued_at', now_iso)
        push(origin, id, at_front == '1')
    end
    ttl = tonumber(ttl)
    if ttl then expire_job(id, ttl, true) end
    return wait, attempt, attempt + retries_left - 1
end

-- Puts a started job back to the front of its queue; no attempt is used.
local function return_job(id, origin)
    redis.call('HSET', job_key(id), 'status', 'queued', 'started_at', '', 'worker_name', '')
    push(origin, id, true)
end

-- Puts back a job that was claimed though its worker never heard of it: the reply was lost.
-- Returns whether there was something to put back.
local function return_orphan(member)
    local id, execution = string.match(member, '^([%w_-]+):(.*)$')
    if not id then return false end
    local status, origin = unpack(redis.call('HMGET', job_key(id), 'status', 'origin'))
    end_execution(id, execution)
    if not origin or redis.call('ZREM', 'rq:wip:' .. origin, member) == 0 or status ~= 'started' then return false end
    return_job(id, origin)
    return true
end
