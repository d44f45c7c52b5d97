-- Ask whoever runs a job to stop it: by RQ's command, and where the worker is ours also by a mark that its next
-- heartbeat finds, so that a message that is lost costs a few seconds.
-- KEYS: 1 job hash, 2 the job's executions
-- ARGV: 1 job id, 2 RQ's command, 3 "1" dry run: nobody is told, 4 who asks or ""
-- Returns: {code, status it had, 1 where the mark stands}; code 0 no such job, 1 asked, 2 it does not run, 3 nobody listens
-- Dynamic keys: executions of the job, the worker's channel, rqxx:leases
-- Source: rq/command.py send_stop_job_command (RQ 2.10); the mark is ours
--- @include time
--- @include timeline

local job = redis.pcall('HMGET', KEYS[1], 'status', 'worker_name')
local status, worker = job[1], job[2]
if job.err or not status then return {0, '', 0} end
if status ~= 'started' or not worker or worker == '' then return {2, status, 0} end

local marked = 0
-- A worker whose lease has run out is dead: what it ran is put back.
local lease = redis.pcall('ZSCORE', 'rqxx:leases', worker)
if type(lease) == 'string' and tonumber(lease) > now_us then
    local executions = redis.pcall('ZRANGE', KEYS[2], 0, -1)
    for _, execution in ipairs(executions.err and {} or executions) do
        local record = 'rq:execution:' .. ARGV[1] .. ':' .. execution
        -- Version 7 of UUID: ours.
        local known = string.sub(execution, 13, 13) == '7' and redis.pcall('HMGET', record, 'id', 'stop') or {}
        if known[1] then
            if known[2] ~= 'acknowledged' and ARGV[3] ~= '1' then redis.call('HSET', record, 'stop', 'asked') end
            marked = 1
        end
    end
end
local listeners
if ARGV[3] == '1' then
    listeners = redis.call('PUBSUB', 'NUMSUB', 'rq:pubsub:' .. worker)[2]
else
    listeners = redis.call('PUBLISH', 'rq:pubsub:' .. worker, ARGV[2])
end
local heard = marked == 1 or listeners > 0
if heard and ARGV[3] ~= '1' then note_event(ARGV[1], 'stop_requested', {by = actor(ARGV[4]), worker = worker}) end
return {heard and 1 or 3, status, marked}
