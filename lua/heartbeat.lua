-- Renew a worker's lease and keep RQ's maintenance away from what it runs.
-- KEYS: 1 worker hash, 2 set of the worker's executions
-- ARGV: 1 name, 2 lease in us, 3 TTL of worker hash and executions, 4 oldest running job or "", 5 its run time in s,
--       then for each running job: job id, execution id, origin, progress ("" unchanged)
-- Returns: {1, {{execution id, why}...}, how many orphans were put back} why: 0 lease lost, 1 canceled, 2 asked to stop;
--       {0} when the worker's lease is gone
-- That an execution is to stop is told each time, in case a reply is lost, and noted as acknowledged the first time.
-- An orphan is an execution of this worker that it does not name: the reply to its claim was lost.
-- Dynamic keys: see includes/transitions.lua
-- Source: rq/worker/base.py heartbeat, rq/executions.py Execution.heartbeat (RQ 2.10)
--- @include time
--- @include transitions
--- @include lanes
if not redis.call('ZSCORE', 'rqxx:leases', ARGV[1]) then return {0} end
local ttl = tonumber(ARGV[3])
redis.call('ZADD', 'rqxx:leases', now_us + tonumber(ARGV[2]), ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then return {0} end
attempt('HSET', KEYS[1], 'last_heartbeat', now_iso, 'current_job_working_time', ARGV[5])
if ARGV[4] ~= '' then attempt('HSET', KEYS[1], 'current_job', ARGV[4]) end
attempt('EXPIRE', KEYS[1], ttl)

local notices, known = {}, {}
for at = 6, #ARGV, 4 do
    local id, execution, origin, progress = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    local member = id .. ':' .. execution
    known[member] = true
    local registry = 'rq:wip:' .. origin
    local key = job_key(id)
    if not attempt('ZSCORE', registry, member) then
        local status = attempt('HGET', key, 'status')
        notices[#notices + 1] = {execution, status == 'canceled' and 1 or 0}
        -- One that was canceled or deleted needs its rate limit's slot for as long as it runs.
        attempt('ZADD', 'rq:executions:' .. id, 'XX', now + ttl + 60, execution)
        attempt('EXPIRE', 'rq:executions:' .. id, ttl + 60)
    else
        attempt('ZADD', registry, 'XX', now + ttl, member)
        local record = 'rq:execution:' .. member
        local known_as, stop = unpack(attempt('HMGET', record, 'id', 'stop'))
        if known_as then
            attempt('HSET', record, 'last_heartbeat', now_float)
            if stop then
                if stop == 'asked' then attempt('HSET', record, 'stop', 'acknowledged') end
                notices[#notices + 1] = {execution, 2}
            end
            if progress ~= '' then attempt('HSET', record, 'progress', progress) end
            attempt('EXPIRE', record, ttl + 60)
            attempt('ZADD', 'rq:executions:' .. id, now + ttl + 60, execution)
            attempt('EXPIRE', 'rq:executions:' .. id, ttl + 60)
        end
        if attempt('EXISTS', key) == 1 then
            attempt('HSET', key, 'last_heartbeat', now_iso)
            if attempt('HGET', key, 'status') == 'canceled' then notices[#notices + 1] = {execution, 1} end
        else
            notices[#notices + 1] = {execution, 0}
        end
    end
end

local orphans = 0
if attempt('SCARD', KEYS[2]) > (#ARGV - 5) / 4 then
    for _, member in ipairs(attempt('SMEMBERS', KEYS[2])) do
        -- A reply may be on its way for as long as a command may take.
        local created = not known[member] and tonumber(attempt('HGET', 'rq:execution:' .. member, 'created_at'))
        if not known[member] and (not created or now - created > 15) then
            attempt('SREM', KEYS[2], member)
            if return_orphan(member) then orphans = orphans + 1 end
            release_all_holds(ARGV[1], {member})
        end
    end
end
attempt('EXPIRE', KEYS[2], ttl + 60)
tell_woken()
store_changes()
return {1, notices, orphans}
