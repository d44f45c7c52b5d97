-- Move scheduled jobs that are due to their queues, for the queues whose scheduler lock is ours.
--
-- RQ's lock is honoured: it is taken where nobody has it, and from a scheduler of ours whose lease has run out.
-- KEYS: 1 leases of schedulers, 2 the scheduler's metadata hash
-- ARGV: 1 scheduler name, 2 lease in us, 3 TTL of locks and metadata in s, or "" to neither take nor renew any,
--       4 most ids to look at, 5 hostname, 6 pid, 7 all its queues joined by commas,
--       then for each queue: name, how many of its due ids to pass over
-- Returns: {{{index of queue from 0, lock, promoted, kept, dropped, more due, previous owner or reason}...},
--       sum of lateness in us, greatest lateness, {bucket of lateness, count, ...}}
--       lock: 0 held, 1 taken, 2 taken over from a dead scheduler of ours, 3 not ours, 4 held, but jobs cannot be promoted
--       A queue whose lock was held before, with nothing due, has no row.
--       Bucket i holds latenesses from 100 us * 1.05^i up, as in includes/metrics.lua.
-- Kept: ids without a hash, until they have been due for a minute, because RQ's producers write the entry before the
-- hash (W10); jobs that still run, as RQ's workers write the entry of a repetition before they end the run; jobs whose
-- queue is not a list. Dropped: ids of canceled, deleted and other jobs that are not scheduled (W12).
-- Dynamic keys: rq:scheduler-lock:<queue>, rq:scheduled:<queue>; see includes/transitions.lua
-- Source: rq/scheduler.py RQScheduler.acquire_locks, enqueue_scheduled_jobs, heartbeat (RQ 2.10)
--- @include time
--- @include transitions
--- @include due
--- @include metrics
local name, lease, lock_ttl, budget = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local first_queue, patience = 8, 60

local rows = {}
local late_sum, late_max, buckets = 0, 0, {}

-- Returns what the lock is to us (see above), and who had it.
local function take_lock(queue, owner)
    local state = 0
    if owner ~= name then
        if lock_ttl == '' then return 3, owner or '' end
        if not owner then
            state = 1
        else
            local lease_end = tonumber(attempt('ZSCORE', KEYS[1], owner))
            if not lease_end or lease_end >= now_us then return 3, owner end
            state = 2
        end
    end
    if lock_ttl ~= '' then redis.call('SET', 'rq:scheduler-lock:' .. queue, name, 'EX', lock_ttl) end
    return state, owner or ''
end

-- Pushes ids, all of one side of one queue, in as few commands as Lua's stack allows.
local function push_all(command, queue, ids)
    for i = 1, #ids, 1000 do
        attempt(command, 'rq:queue:' .. queue, unpack(ids, i, math.min(i + 999, #ids)))
    end
end

local function promote(queue, pass_over)
    local registry = 'rq:scheduled:' .. queue
    local due = attempt('ZRANGEBYSCORE', registry, 0, now_float, 'WITHSCORES', 'LIMIT', pass_over, budget)
    if due.err then return 0, 0, 0, 0, 'rq:scheduled:' .. queue .. ' is not a sorted set' end
    local count = #due / 2
    if count == 0 then return 0, 0, 0, 0 end
    budget = budget - count

    local kept, why = 0, nil
    local leaving, promoted, targets = {}, {}, {}
    local late_score, late_us, late_bucket
    for i = 1, #due, 2 do
        local id, score = due[i], due[i + 1]
        local job = string.find(id, '^[%w_-]+$') and
            attempt('HMGET', job_key(id), 'status', 'origin', 'enqueue_at_front', 'enqueue_at_front_on_retry', 'ended_at', 'ttl',
                'rate_limit_key', 'rate_limit_concurrency')
        local status = job and job[1]
        -- `created` is a job that was saved and put into the registry by hand, which RQ runs.
        if status == 'scheduled' or status == 'created' then
            local origin = job[2]
            if not origin or origin == '' then origin = queue end
            if can_push(origin) then
                leaving[#leaving + 1] = id
                promoted[#promoted + 1] = job
                local target = targets[origin]
                if not target then
                    target = {front = {}, back = {}}
                    targets[origin] = target
                end
                job.id, job.origin, job.at_front = id, origin, is_for_front(job[3], job[4], job[5])
                job.limited = has_rate_limit(job[7], job[8])
                local side = job.at_front and target.front or target.back
                if not job.limited then side[#side + 1] = id end
                if score ~= late_score then
                    late_score = score
                    late_us = math.max(now_us - tonumber(score) * 1000000, 0)
                    late_bucket = histogram_bucket(late_us)
                end
                late_sum = late_sum + late_us
                late_max = math.max(late_max, late_us)
                buckets[late_bucket] = (buckets[late_bucket] or 0) + 1
            else
                kept = kept + 1
                why = 'rq:queue:' .. origin .. ' is not a list'
            end
        elseif job and (not status or status == 'started') and now - tonumber(score) < patience then
            kept = kept + 1
        else
            leaving[#leaving + 1] = id
        end
    end

    -- A redis.call: the first write, see transitions. Nobody else can have removed one since it was read.
    for i = 1, #leaving, 1000 do
        redis.call('ZREM', registry, unpack(leaving, i, math.min(i + 999, #leaving)))
    end
    for _, job in ipairs(promoted) do
        local key = job_key(job.id)
        note_change(job.id)
        if job.limited then
            -- Its hash tells, when its turn has come, which end it is for.
            if job.at_front then attempt('HSET', key, 'enqueue_at_front', '1') end
            enter_rate_limit(job.id, job[7], job[8], 'origin', job.origin)
        elseif job[2] == job.origin then
            attempt('HSET', key, 'status', 'queued', 'enqueued_at', now_iso)
        else
            attempt('HSET', key, 'status', 'queued', 'enqueued_at', now_iso, 'origin', job.origin)
        end
        if job[6] then expire_job(job.id, ttl_of(job[6]), true) end
    end
    for origin, target in pairs(targets) do
        attempt('SADD', 'rq:queues', 'rq:queue:' .. origin)
        push_all('LPUSH', origin, target.front)
        push_all('RPUSH', origin, target.back)
    end
    return #promoted, kept, #leaving - #promoted, budget == 0 and 1 or 0, why
end

local locks = {}
for at = first_queue, #ARGV, 2 do locks[#locks + 1] = 'rq:scheduler-lock:' .. ARGV[at] end
local owners = redis.call('MGET', unpack(locks))

local holds_any = false
local states = {}
for i = 1, #owners do
    local state, owner = take_lock(ARGV[first_queue + 2 * (i - 1)], owners[i])
    states[i] = {state, owner}
    holds_any = holds_any or state ~= 3
end
if lock_ttl ~= '' and holds_any then
    if type(attempt('ZADD', KEYS[1], now_us + lease, name)) == 'table' then   -- of another type
        attempt('DEL', KEYS[1])
        attempt('ZADD', KEYS[1], now_us + lease, name)
    end
    -- Locks outlive the lease of a dead scheduler, and nothing else needs to know of it.
    attempt('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_us - 2 * 1000000 * tonumber(lock_ttl))
    local created_at = attempt('HGET', KEYS[2], 'created_at')
    if type(created_at) == 'table' then attempt('DEL', KEYS[2]) end
    attempt('HSET', KEYS[2], 'name', name, 'hostname', ARGV[5], 'pid', ARGV[6], 'queues', ARGV[7],
        'created_at', type(created_at) == 'string' and created_at or now_iso, 'last_heartbeat', now_iso)
    attempt('EXPIRE', KEYS[2], lock_ttl)
end
for i = 1, #owners do
    local at = first_queue + 2 * (i - 1)
    local state, note = unpack(states[i])
    local promoted, kept, dropped, more, why = 0, 0, 0, 0, nil
    if state ~= 3 then
        if budget > 0 then
            promoted, kept, dropped, more, why = promote(ARGV[at], tonumber(ARGV[at + 1]))
        else
            more = 1
        end
        if why then state, note = 4, why end
    end
    if state ~= 0 or promoted + kept + dropped + more > 0 then
        rows[#rows + 1] = {i - 1, state, promoted, kept, dropped, more, note}
    end
end

local flat = {}
for bucket, count in pairs(buckets) do
    flat[#flat + 1] = bucket
    flat[#flat + 1] = count
end
store_changes()
return {rows, late_sum, late_max, flat}
