-- RQ's limit on how many jobs with one key are queued or running at once. Included by transitions.lua.
--
-- A job that is let through has a slot, its place in `rq:rl:<key>:allowed`, until it is neither queued nor started. The
-- others wait in `rq:rl:<key>:rate_limited` with the status `rate_limited`, on no queue. The limit itself is the field
-- `concurrency` of `rq:rl:<key>`, as the job that was enqueued last has it.
-- Source: rq/rate_limit.py, rq/queue.py Queue._enqueue_rate_limited_job (RQ 3.0)

-- Of the job's fields rate_limit_key and rate_limit_concurrency.
local function has_rate_limit(key, concurrency)
    return key and key ~= '' and count_of(concurrency) > 0
end

-- Adds to a sorted set; what is of another type makes way, or the job would stand nowhere.
local function add_to_set(set, score, id)
    local added = attempt('ZADD', set, score, id)
    if type(added) == 'number' then return added end
    attempt('DEL', set)
    return attempt('ZADD', set, score, id)
end

-- Lets waiting jobs through while there are slots, oldest first. One call must not be long: the next one goes on.
local most_let_through = 1000
local function fill_slots(key, concurrency)
    local allowed, waiting = 'rq:rl:' .. key .. ':allowed', 'rq:rl:' .. key .. ':rate_limited'
    local taken = tonumber(attempt('ZCARD', allowed)) or 0
    for _ = 1, most_let_through do
        local id = taken < concurrency and attempt('ZPOPMIN', waiting)[1]
        if not id then return end
        local status, origin, front = unpack(attempt('HMGET', job_key(id), 'status', 'origin', 'enqueue_at_front'))
        -- Of a job that was deleted or has gone another way only this place was left.
        if origin and status == 'rate_limited' then
            taken = taken + add_to_set(allowed, now, id)
            attempt('HSET', job_key(id), 'status', 'queued', 'enqueued_at', now_iso)
            push(origin, id, front == '1')
        end
    end
end

-- Puts a job behind its limit, where its turn may come at once. Further arguments: fields to write with it.
local function enter_rate_limit(id, key, concurrency, ...)
    concurrency = count_of(concurrency)
    note_change(id)
    attempt('SADD', 'rq:rl-keys', key)
    attempt('HSET', 'rq:rl:' .. key, 'concurrency', concurrency)
    attempt('HSET', job_key(id), 'status', 'rate_limited', ...)
    -- To the microsecond, where RQ has seconds: so they keep their order.
    add_to_set('rq:rl:' .. key .. ':rate_limited', now_float, id)
    fill_slots(key, concurrency)
end

-- Gives a job's slot to the next, unless the job still needs it. One that was canceled or deleted while it runs needs
-- it until its execution has ended.
local function release_slot(id, key)
    if not key or key == '' then return end
    local status = attempt('HGET', job_key(id), 'status')
    if status == 'queued' or status == 'started' then return end
    local running = attempt('ZCOUNT', 'rq:executions:' .. id, '(' .. text_of(now), '+inf')
    if type(running) == 'number' and running > 0 then return end
    if attempt('ZREM', 'rq:rl:' .. key .. ':allowed', id) ~= 1 then return end
    fill_slots(key, count_of(attempt('HGET', 'rq:rl:' .. key, 'concurrency')))
end

-- Of a job that was canceled or deleted just now.
local function leave_rate_limit(id, key)
    if not key or key == '' then return end
    attempt('ZREM', 'rq:rl:' .. key .. ':rate_limited', id)
    release_slot(id, key)
end

-- Puts a job that nothing else holds back on its queue, or behind its limit.
local function let_go(id, origin, at_front, ttl, key, concurrency)
    expire_job(id, ttl_of(ttl), true)
    if has_rate_limit(key, concurrency) then return enter_rate_limit(id, key, concurrency) end
    attempt('HSET', job_key(id), 'status', 'queued', 'enqueued_at', now_iso)
    push(origin, id, at_front)
end
