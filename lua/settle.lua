-- End executions: success, failure (with a retry where one is left), or return to the queue.
-- Fenced: an execution that is no longer in its started registry changes nothing.
-- KEYS: 1 worker hash, 2 set of the worker's executions
-- ARGV: 1 worker name, 2 the worker's oldest job still running or "", 3 default result TTL, then for each:
--       job id, execution id, origin, outcome, payload, started at (epoch float), run time (us), queue time (us, -1 unknown),
--       "" or, for a job without repeats, group, dependencies, webhooks and rate limit, its result TTL ("-" for none),
--       "" or "<peak resident memory in kB> <CPU seconds> <cause>" of a process (0 unknown, cause may be empty)
--       outcome: S success (payload: return value in base64 or ""), F failure, T failure without retry, X stopped by
--       command (payload: exc_string), R return to the front of its queue (no attempt used), Y the function asked for a
--       retry (payload: "<most retries> <seconds to wait> <return value in base64>"), L to be run later without using an
--       attempt (payload: seconds to wait; then " limit" and, each in a line, limiters that let nothing pass until then either)
-- Returns: for each {code, wait, attempt, of}; code 0 refused (lease lost), 1 finished, 2 failed, 3 retried
--       (wait in seconds, this attempt, of how many), 4 returned, 5 it had been canceled, 6 it had been deleted, 7 stopped,
--       8 postponed (wait)
-- Dynamic keys: see includes/transitions.lua
-- Source: rq/worker/base.py handle_job_success, handle_job_failure, handle_job_retry (RQ 2.10)
--- @include time
--- @include transitions
--- @include metrics
--- @include webhooks
--- @include ttls
--- @include lanes
--- @include batches
--- @include timeline

local worker, default_result_ttl = ARGV[1], tonumber(ARGV[3])
local answers, members, records = {}, {}, {}
local finished, failed, working_us = 0, 0, 0
local finished_by_queue = {}
local totals = {}

local pushed_back = {}   -- limiters, by until when

local function push_back_limits(payload)
    local seconds, names = string.match(payload, '^(%d+) limit\n(.*)$')
    for name in string.gmatch(names or '', '[^\n]+') do
        pushed_back[name] = math.max(pushed_back[name] or 0, now_us + count_of(seconds) * 1000000)
    end
end

-- One question for all: which executions are still held, and whether any job has dependents.
local width = 10
local held, wip_members, wip_places, dependents = {}, {}, {}, {}
for at = 4, #ARGV, width do
    local origin, member = ARGV[at + 2], ARGV[at] .. ':' .. ARGV[at + 1]
    members[#members + 1] = member
    if ARGV[at + 3] == 'L' then push_back_limits(ARGV[at + 4]) end
    records[#records + 1] = 'rq:execution:' .. member
    dependents[#dependents + 1] = 'rq:job:' .. ARGV[at] .. ':dependents'
    local list = wip_members[origin]
    if not list then
        list = {}
        wip_members[origin], wip_places[origin] = list, {}
    end
    list[#list + 1] = member
    wip_places[origin][#list] = at
end
redis.call('DEL', unpack(records))   -- the first write, see transitions
release_all_holds(worker, members)
for name, until_us in pairs(pushed_back) do attempt('ZADD', 'rqxx:limits:until', 'GT', text_of(until_us), name) end
for origin, list in pairs(wip_members) do
    local registry = 'rq:wip:' .. origin
    local scores = attempt('ZMSCORE', registry, unpack(list))
    for i, at in ipairs(wip_places[origin]) do held[at] = scores[i] end
    attempt('ZREM', registry, unpack(list))
end
local any_dependents = redis.call('EXISTS', unpack(dependents)) > 0

local function total(what, origin)
    local field = what .. '|' .. origin
    totals[field] = (totals[field] or 0) + 1
end

-- Puts into a result's fields what is known of the process in which it came about.
local function add_account(fields, account)
    local rss, cpu, cause = string.match(account, '^(%d+) ([%d.]+) (.*)$')
    if not rss then return end
    if rss ~= '0' then
        for _, text in ipairs({'max_rss_kb', rss, 'cpu_seconds', cpu}) do fields[#fields + 1] = text end
    end
    if cause ~= '' then
        fields[#fields + 1] = 'cause'
        fields[#fields + 1] = cause
    end
end

local function succeed(id, execution, origin, payload, started, job, account)
    local ttl = ttl_of(job[2]) or default_result_ttl
    local key = job_key(id)
    note_change(id)
    local repeats_left = count_of(job[7])
    if repeats_left <= 0 then note_end(job[9], id, 'finished') end
    if ttl == 0 and repeats_left <= 0 then
        attempt('HSET', key, 'status', 'finished')
        release_dependents(id, 'finished')
        delete_job(id, job[9])
        return
    end
    attempt('HSET', key, 'status', 'finished', 'ended_at', now_iso, 'last_heartbeat', now_iso)
    if ttl ~= 0 then
        if account ~= '' then
            local fields = {'type', '1', 'worker_name', worker, 'execution_id', execution,
                'execution_started_at', started, 'execution_ended_at', now_float}
            if payload ~= '' then
                fields[#fields + 1] = 'return_value'
                fields[#fields + 1] = payload
            end
            add_account(fields, account)
            add_result(id, ttl, unpack(fields))
        elseif payload == '' then
            add_result(id, ttl, 'type', '1', 'worker_name', worker, 'execution_id', execution,
                'execution_started_at', started, 'execution_ended_at', now_float)
        else
            add_result(id, ttl, 'type', '1', 'worker_name', worker, 'return_value', payload,
                'execution_id', execution, 'execution_started_at', started, 'execution_ended_at', now_float)
        end
        local registry = finished_by_queue[origin]
        if not registry then
            registry = {}
            finished_by_queue[origin] = registry
        end
        registry[#registry + 1] = ttl == -1 and '+inf' or text_of(now + ttl)
        registry[#registry + 1] = id
        note_ttl('finished', origin, ttl)
    end
    local children = any_dependents and release_dependents(id, 'finished') or 0
    if repeats_left > 0 then
        -- The list of intervals is used up from its end. Source: rq/repeat.py (RQ 2.10).
        local ok, list = pcall(cjson.decode, job[8] or '[]')
        local wait = ok and type(list) == 'table' and count_of(list[repeats_left] or list[#list]) or 0
        if wait > 0 then
            attempt('HSET', key, 'status', 'scheduled', 'repeats_left', repeats_left - 1)
            attempt('ZADD', 'rq:scheduled:' .. origin, now + wait, id)
        else
            attempt('HSET', key, 'status', 'queued', 'repeats_left', repeats_left - 1, 'enqueued_at', now_iso)
            push(origin, id, false)
        end
        attempt('SADD', 'rq:queues', 'rq:queue:' .. origin)
        expire_job(id, ttl_of(job[11]), true)
    elseif ttl > 0 then
        attempt('EXPIRE', key, text_of(ttl))
        if children > 0 then attempt('EXPIRE', 'rq:job:' .. id .. ':dependents', text_of(ttl)) end
        if job[10] then attempt('EXPIRE', 'rq:job::' .. id .. ':dependencies', text_of(ttl)) end
    end
end

-- What settling needs of a job's hash. Redis searches a hash from its beginning for each field: a job whose result TTL
-- the worker knows, and that has nothing else of interest to a success, is asked for its status alone.
local function read_job(id, known_ttl)
    if not known_ttl or known_ttl == '' then
        return attempt('HMGET', job_key(id), 'status', 'result_ttl', 'failure_ttl', 'retries_left', 'retry_intervals',
            'enqueue_at_front_on_retry', 'repeats_left', 'repeat_intervals', 'group_id', 'dependency_ids', 'ttl', 'data',
            'number_of_retries', 'webhooks', 'enqueued_at', 'rate_limit_key')
    end
    local status = attempt('HGET', job_key(id), 'status')
    return {type(status) == 'string' and status, known_ttl ~= '-' and known_ttl, [12] = ''}
end

local function count_failure(what, origin, run_us, wait_us)
    failed = failed + 1
    working_us = working_us + run_us
    total(what, origin)
    if what ~= 'retried' then measure('failed', run_us, wait_us) end
end

-- An attempt that is over, of a job that goes on. RQ keeps nothing of such: its result entries are for ends.
-- `error`: exc_string, told as far as it is not too long.
local longest_error = 4000
local function note_attempt(event, id, execution, started, details, error)
    note_event(id, event, {worker = worker, execution = execution, started_at = started, details = details,
        exc_string = error and #error <= longest_error and error or nil})
end

local function end_without_success(id, execution, origin, status, payload, started, job, account)
    local result = {'type', '2', 'worker_name', worker, 'exc_string', payload, 'execution_id', execution,
        'execution_started_at', started, 'execution_ended_at', now_float}
    add_account(result, account)
    note_ttl('failed', origin, fail_job(id, origin, status, job[3], job[9], result))
    if status == 'failed' then add_webhooks(id, job[14], 'failed', job[12], job[15], payload) end
end

-- The function returned a Retry: run again while it may, else the job has failed.
-- Returns the answer for the worker.
local function retry_as_asked(id, execution, origin, payload, started, job, run_us, wait_us, account)
    local most, wait, value = string.match(payload, '^(%d+) (%d+) (.*)$')
    most, wait = count_of(most), count_of(wait)
    local used = count_of(job[13])
    local result = {'type', '4', 'worker_name', worker, 'return_value', value or '', 'execution_id', execution,
        'execution_started_at', started, 'execution_ended_at', now_float}
    add_account(result, account)
    if used > 0 and used >= most then
        result[2] = '5'
        note_ttl('failed', origin, fail_job(id, origin, 'failed', job[3], job[9], result))
        add_webhooks(id, job[14], 'failed', job[12], job[15], '')
        count_failure('failed', origin, run_us, wait_us)
        return {2}
    end
    add_result(id, ttl_of(job[3]) or default_failure_ttl, unpack(result))
    run_again(id, origin, wait, false, job[11], 'number_of_retries', used + 1)
    note_attempt('retried', id, execution, started, string.format('its function asked for retry %d of %d, in %d s', used + 1, most, wait))
    count_failure('retried', origin, run_us, wait_us)
    return {3, wait, used + 1, most}
end

for at = 4, #ARGV, width do
    local id, execution, origin, outcome, payload = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
    local started, run_us, wait_us = ARGV[at + 5], tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7])
    local account = ARGV[at + 9]
    attempt('ZREM', 'rq:executions:' .. id, execution)
    local job, answer
    if held[at] then job = read_job(id, outcome == 'S' and ARGV[at + 8]) end
    if not job then
        -- Canceling and deleting take the execution away; else its lease was lost.
        local status, limit = unpack(attempt('HMGET', job_key(id), 'status', 'rate_limit_key'))
        answer = {status == 'canceled' and 5 or attempt('EXISTS', job_key(id)) == 0 and 6 or 0}
        release_slot(id, limit)
    elseif not job[1] or not job[12] and outcome ~= 'T' then
        -- Deleted while it ran: not to be brought back by our writes.
        answer = {6}
    elseif job[1] == 'canceled' then
        note_end(job[9], id, 'canceled')
        answer = {5}
    elseif outcome == 'S' then
        succeed(id, execution, origin, payload, started, job, account)
        add_webhooks(id, job[14], 'finished', job[12], job[15], '')
        finished = finished + 1
        working_us = working_us + run_us
        measure('finished', run_us, wait_us)
        total('finished', origin)
        answer = {1}
    elseif outcome == 'R' then
        return_job(id, origin)
        note_attempt('returned', id, execution, started, 'its worker stopped')
        answer = {4}
    elseif outcome == 'L' then
        local wait = count_of(string.match(payload, '^%d+'))
        run_again(id, origin, wait, true, job[11])
        note_attempt('postponed', id, execution, started, string.format('for %d s', wait))
        answer = {8, wait}
    elseif outcome == 'X' then
        end_without_success(id, execution, origin, 'stopped', payload, started, job, account)
        count_failure('stopped', origin, run_us, wait_us)
        answer = {7}
    elseif outcome == 'Y' then
        answer = retry_as_asked(id, execution, origin, payload, started, job, run_us, wait_us, account)
    elseif outcome == 'F' and count_of(job[4]) > 0 then
        local wait, retry, of = retry_job(id, origin, count_of(job[4]), job[5], job[6], job[11])
        note_attempt('retried', id, execution, started, string.format('retry %d of %d, in %d s', retry, of, wait), payload)
        count_failure('retried', origin, run_us, wait_us)
        answer = {3, wait, retry, of}
    else
        end_without_success(id, execution, origin, 'failed', payload, started, job, account)
        count_failure('failed', origin, run_us, wait_us)
        answer = {2}
    end
    if job then release_slot(id, job[16]) end
    answers[#answers + 1] = answer
end

for origin, registry in pairs(finished_by_queue) do
    for i = 1, #registry, 1000 do
        attempt('ZADD', 'rq:finished:' .. origin, unpack(registry, i, math.min(i + 999, #registry)))
    end
end
attempt('SREM', KEYS[2], unpack(members))
if attempt('EXISTS', KEYS[1]) == 1 then
    if finished > 0 then attempt('HINCRBY', KEYS[1], 'successful_job_count', finished) end
    if failed > 0 then attempt('HINCRBY', KEYS[1], 'failed_job_count', failed) end
    if working_us > 0 then attempt('HINCRBYFLOAT', KEYS[1], 'total_working_time', epoch_float(working_us)) end
    local running = ARGV[2]
    if running == '' then   -- a claim that came before this call may have taken more
        local member = attempt('SRANDMEMBER', KEYS[2])
        running = type(member) == 'string' and string.match(member, '^[%w_-]+') or ''
    end
    if running == '' then
        attempt('HDEL', KEYS[1], 'current_job')
        attempt('HSET', KEYS[1], 'current_job_working_time', 0,
            'state', attempt('EXISTS', 'rq:suspended') == 1 and 'suspended' or 'idle')
    else
        attempt('HSET', KEYS[1], 'current_job', running, 'state', 'busy')
    end
end
for field, count in pairs(totals) do attempt('HINCRBY', 'rqxx:totals', field, count) end
store_metrics(now)
store_ttls()
tell_woken()
store_batches()
return answers
