-- Save a job and put it where it belongs, in one step: on its queue, into the scheduled registry, or, while a
-- dependency holds it back, into the deferred one.
-- KEYS: 1 job hash, 2 queue list
-- ARGV: 1 job id, 2 queue, 3 "L" front | "R" back, 4 "1" unique (any job of this id is in the way) | "L" with
--       a rate limit, 5 ttl or "",
--       6 when it is due (epoch seconds) or "", 7 group or "", 8 how many dependencies, then their ids, then field, value, ...
-- Returns: {code, status}; code 0: nothing was written, because of a job of this id in that status; 1 queued,
--       2 scheduled, 3 deferred, 4 rate_limited
-- Dynamic keys: see includes/transitions.lua; of the jobs that it depends on
-- Source: rq/queue.py Queue.enqueue_job, setup_dependencies, schedule_job (RQ 2.10), rq/scripts.py UNIQUE_ENQUEUE_SCRIPT
--- @include time
--- @include transitions
local id, queue, dependencies = ARGV[1], ARGV[2], tonumber(ARGV[8])
local in_use = {queued = true, started = true, scheduled = true, deferred = true, rate_limited = true, ready_to_enqueue = true}

if redis.call('EXISTS', KEYS[1]) == 1 then
    local status = redis.pcall('HGET', KEYS[1], 'status')
    if type(status) == 'table' then return {0, 'unreadable'} end
    status = status or 'created'
    -- RQ would merge the jobs and put the id on the queue once more.
    if ARGV[4] == '1' or in_use[status] then return {0, status} end
    local origin = redis.call('HGET', KEYS[1], 'origin') or queue
    redis.call('DEL', KEYS[1])
    -- It no longer waits for what it waited for. RQ fails a parent whose child names no dependencies (P3).
    forget_dependencies(id)
    attempt('DEL', 'rq:job::' .. id .. ':dependencies')
    for _, registry in ipairs({'finished', 'failed', 'canceled'}) do
        attempt('ZREM', 'rq:' .. registry .. ':' .. origin, id)
    end
end
redis.call('SADD', 'rq:queues', KEYS[2])
redis.call('HSET', KEYS[1], unpack(ARGV, 9 + dependencies))

local code = 1
if dependencies > 0 then
    local allows_failure = attempt('HGET', KEYS[1], 'allow_dependency_failures') == '1'
    for i = 9, 8 + dependencies do
        local status = attempt('HGET', job_key(ARGV[i]), 'status')
        if not lets_pass(type(status) == 'string' and status or nil, allows_failure) then code = 3 break end
    end
end
if code == 3 then
    for i = 9, 8 + dependencies do
        attempt('SADD', 'rq:job:' .. ARGV[i] .. ':dependents', id)
        attempt('SADD', 'rq:job::' .. id .. ':dependencies', ARGV[i])
    end
    attempt('HSET', KEYS[1], 'status', 'deferred')
    attempt('HDEL', KEYS[1], 'enqueued_at')
    attempt('ZADD', 'rq:deferred:' .. queue, now, id)
elseif ARGV[6] ~= '' then
    code = 2
    attempt('HSET', KEYS[1], 'status', 'scheduled')
    attempt('HDEL', KEYS[1], 'enqueued_at')
    attempt('ZADD', 'rq:scheduled:' .. queue, ARGV[6], id)
elseif ARGV[4] == 'L' then
    attempt('HDEL', KEYS[1], 'enqueued_at')
    -- Whoever lets it through has only its hash.
    if ARGV[3] == 'L' then attempt('HSET', KEYS[1], 'enqueue_at_front', '1') end
    enter_rate_limit(id, unpack(attempt('HMGET', KEYS[1], 'rate_limit_key', 'rate_limit_concurrency')))
    if attempt('HGET', KEYS[1], 'status') == 'rate_limited' then code = 4 end
else
    push(queue, id, ARGV[3] == 'L')
end
if ARGV[7] ~= '' then
    attempt('SADD', 'rq:group:' .. ARGV[7], id)
    attempt('SADD', 'rq:groups', ARGV[7])
end
if ARGV[5] ~= '' then expire_job(id, ttl_of(ARGV[5]), dependencies > 0) end
return {code, ''}
