-- Putting a new job where it belongs, and into its batch. Needs time.lua, transitions.lua and batches.lua.
-- Source: rq/queue.py Queue.enqueue_job, setup_dependencies, schedule_job (RQ 2.10), rq/scripts.py UNIQUE_ENQUEUE_SCRIPT

-- A part of ARGV. `unpack` takes no more than Lua's stack holds.
local function arguments(first, count)
    local list = {}
    for i = 1, count do list[i] = ARGV[first + i - 1] end
    return list
end

local placed_queued, placed_scheduled, placed_deferred, placed_rate_limited = 1, 2, 3, 4   -- what `place` answers

local in_use = {queued = true, started = true, scheduled = true, deferred = true, rate_limited = true, ready_to_enqueue = true}

-- The status of a job of this id that is in the way (`unique`: even one that has ended is), or nil; and whether there is one.
local function in_the_way(id, unique)
    if redis.call('EXISTS', job_key(id)) == 0 then return nil, false end
    local status = redis.pcall('HGET', job_key(id), 'status')
    if type(status) == 'table' then return 'unreadable', true end
    status = status or 'created'
    -- RQ would merge the jobs and put the id on the queue once more.
    return (unique or in_use[status]) and status or nil, true
end

-- A job of this id that has ended makes way for the new one.
local function clear_ended(id, queue)
    local origin, group, status = unpack(attempt('HMGET', job_key(id), 'origin', 'group_id', 'status'))
    origin = origin or queue
    note_end(group, id, has_ended[status] and status or 'deleted')
    redis.call('DEL', job_key(id))
    -- It no longer waits for what it waited for. RQ fails a parent whose child names no dependencies (P3).
    forget_dependencies(id)
    attempt('DEL', 'rq:job::' .. id .. ':dependencies')
    for _, registry in ipairs({'finished', 'failed', 'canceled'}) do
        attempt('ZREM', 'rq:' .. registry .. ':' .. origin, id)
    end
end

-- Why a group is a batch that takes no more jobs, or nil.
local function why_closed(group)
    if group == '' or not batch_of(group) then return nil end
    local state, wants = unpack(attempt('HMGET', batch_key(group), 'state', 'wants'))
    if wants == 'cancel' then return 'canceled' end
    if state ~= 'open' then return 'sealed' end
end

-- New jobs of an open batch.
local function join_batch(batch, ids)
    local key = batch_key(batch)
    attempt('SADD', key .. ':pending', unpack(ids))
    attempt('HINCRBY', key, 'total', #ids)
    attempt('HSET', key, 'open_until', us_text(now_us + count_of(attempt('HGET', key, 'open_for')) * 1000000))
end

-- Where a job whose hash is written goes. `job`: {id, queue, at_front, due or '', group or '', ttl or '', dependencies = {ids},
-- keeps_place = true for one that stands on its queue and stays there, limited = true for one with a rate limit}.
local function place(job)
    local id, queue, key = job.id, job.queue, job_key(job.id)
    note_change(id)
    local where = job.due ~= '' and placed_scheduled or placed_queued
    if #job.dependencies > 0 then
        local allows_failure = attempt('HGET', key, 'allow_dependency_failures') == '1'
        for _, parent in ipairs(job.dependencies) do
            local status = attempt('HGET', job_key(parent), 'status')
            if not lets_pass(type(status) == 'string' and status or nil, allows_failure) then
                where = placed_deferred
                break
            end
        end
    end
    if where == placed_deferred then
        for _, parent in ipairs(job.dependencies) do
            attempt('SADD', 'rq:job:' .. parent .. ':dependents', id)
            attempt('SADD', 'rq:job::' .. id .. ':dependencies', parent)
        end
        attempt('HSET', key, 'status', 'deferred')
        attempt('HDEL', key, 'enqueued_at')
        attempt('ZADD', 'rq:deferred:' .. queue, now, id)
    elseif where == placed_scheduled then
        attempt('HSET', key, 'status', 'scheduled')
        attempt('HDEL', key, 'enqueued_at')
        attempt('ZADD', 'rq:scheduled:' .. queue, job.due, id)
    elseif job.limited then
        attempt('HDEL', key, 'enqueued_at')
        -- Whoever lets it through has only its hash.
        if job.at_front then attempt('HSET', key, 'enqueue_at_front', '1') end
        enter_rate_limit(id, unpack(attempt('HMGET', key, 'rate_limit_key', 'rate_limit_concurrency')))
        if attempt('HGET', key, 'status') == 'rate_limited' then where = placed_rate_limited end
    elseif not job.keeps_place then
        push(queue, id, job.at_front)
    end
    if job.group ~= '' then
        attempt('SADD', 'rq:group:' .. job.group, id)
        attempt('SADD', 'rq:groups', job.group)
        if batch_of(job.group) then join_batch(job.group, {id}) end
    end
    if job.ttl ~= '' then expire_job(id, ttl_of(job.ttl), #job.dependencies > 0) end
    return where
end
