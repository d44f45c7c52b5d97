-- Take back what dead workers were running.
--
-- A worker of ours is dead when its lease has run out; any other when the scores of its executions have.
-- KEYS: 1 the leases, 2 when sweeps ran
-- ARGV: 1 "requeue" | "fail" (a job without retries), 2 exc_string for abandoned jobs, 3 most jobs to handle,
--       4.. queues whose started registries are to be searched
-- Returns: {more to do, {{job id, what, worker, queue, attempt, of}...}}
--       what: "retried", "requeued", "failed", "stopped", "stale" (it was not running any more)
-- Dynamic keys: see includes/transitions.lua
-- Source: rq/registry.py StartedJobRegistry.cleanup (RQ 2.10); the differences are W14 to W16 in docs/compatibility.md
--- @include time
--- @include transitions
--- @include metrics
--- @include webhooks
--- @include stock_cleanup
--- @include ttls
--- @include batches
--- @include recovery
--- @include lanes

-- After an outage, or when no process of ours was there, leases have run out though their workers live:
-- sweeps must have gone on for a while before one may judge.
local last, since = unpack(redis.call('HMGET', KEYS[2], 'last', 'since'))
if not last or now_us - tonumber(last) > 5000000 or now_us < tonumber(last) then since = now_us end
redis.call('HSET', KEYS[2], 'last', now_us, 'since', since)
redis.call('EXPIRE', KEYS[2], 3600)
if now_us - tonumber(since) < 4500000 then return {0, {}} end

local policy, exc_string, budget = ARGV[1], ARGV[2], tonumber(ARGV[3])
local report = {}

local function recover(member, known_origin, worker)
    local id, execution = string.match(member, '^([%w_-]+):?(.*)$')
    if not id or attempt('TYPE', job_key(id)).ok == 'string' then
        if known_origin then attempt('ZREM', 'rq:wip:' .. known_origin, member) end
        return
    end
    local job = attempt('HMGET', job_key(id), 'status', 'origin', 'worker_name', 'rate_limit_key')
    local origin = job[2] or known_origin
    if not origin then return end
    local asked_to_stop = type(attempt('HGET', 'rq:execution:' .. member, 'stop')) == 'string'
    -- Only who removes the entry may act on it.
    local held = attempt('ZREM', 'rq:wip:' .. (known_origin or origin), member) == 1
    end_execution(id, execution)
    worker = worker or job[3] or ''
    if not held or job[1] ~= 'started' or is_held(id, origin) then
        release_slot(id, job[4])   -- it was canceled while it ran
        report[#report + 1] = {id, 'stale', worker, origin, 0, 0}
        return
    end
    local what, retry, of = recover_job(id, origin, policy, exc_string, asked_to_stop)
    report[#report + 1] = {id, what, worker, origin, retry, of}
end

local function bury(worker)
    local key = 'rq:worker:' .. worker
    attempt('ZREM', KEYS[1], worker)
    attempt('DEL', key .. ':executions')
    release_all_of(worker)
    attempt('HDEL', 'rqxx:slots', worker)
    attempt('SREM', 'rq:workers', key)
    local queues = attempt('HGET', key, 'queues')
    for queue in string.gmatch(type(queues) == 'string' and queues or '', '[^,]+') do
        attempt('SREM', 'rq:workers:' .. queue, key)
    end
    if attempt('EXISTS', key) == 1 then
        attempt('HSET', key, 'death', now_iso)
        attempt('EXPIRE', key, 60)
    end
end

local more = 0
for _, worker in ipairs(attempt('ZRANGEBYSCORE', KEYS[1], '-inf', now_us, 'LIMIT', 0, 10)) do
    local set = 'rq:worker:' .. worker .. ':executions'
    local members = attempt('SRANDMEMBER', set, budget + 1)
    for i = 1, math.min(#members, budget) do
        recover(members[i], nil, worker)
        attempt('SREM', set, members[i])
    end
    if #members > budget then
        more, budget = 1, 0
        break
    end
    budget = budget - #members
    bury(worker)
end
for i = 4, #ARGV do
    local registry = 'rq:wip:' .. ARGV[i]
    if budget > 0 and attempt('TYPE', registry).ok == 'zset' and not stock_cleans(ARGV[i]) then
        local lapsed = attempt('ZRANGEBYSCORE', registry, '-inf', now, 'LIMIT', 0, budget)
        budget = budget - #lapsed
        for _, member in ipairs(lapsed) do recover(member, ARGV[i], nil) end
    end
end
if budget <= 0 then more = 1 end
store_recovered()
tell_woken()
return {more, report}
