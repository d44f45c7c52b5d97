-- What becomes of a started job that nobody runs any more. Needs time.lua, transitions.lua, metrics.lua, webhooks.lua, ttls.lua,
-- batches.lua.
--- @include timeline
local recovered = {}

local function count_recovered(what, origin)
    local field = what .. '|' .. origin
    recovered[field] = (recovered[field] or 0) + 1
end

-- A retry where one is left; else, as `policy` says, it is put back once ("requeue"), or fails with `exc_string`.
-- `asked_to_stop`: somebody wanted it stopped, see stop.lua, and it does not run again.
-- The caller has made sure that it is started, and that nothing holds it.
-- Returns what it was ("retried", "requeued", "failed", "stopped"), the number of the retry, of how many.
local function recover_job(id, origin, policy, exc_string, asked_to_stop)
    local job = attempt('HMGET', job_key(id), 'retries_left', 'ttl', 'failure_ttl', 'group_id', 'rqxx_recoveries', 'webhooks',
        'data', 'enqueued_at', 'rate_limit_key')
    count_recovered('recovered', origin)
    local final = asked_to_stop and 'stopped' or 'failed'
    local retries_left = asked_to_stop and 0 or count_of(job[1])
    if retries_left > 0 then
        -- At once, whatever the intervals say: the wait is for jobs that failed, not for workers that died.
        local _, retry, of = retry_job(id, origin, retries_left, nil, '1', job[2])
        note_event(id, 'recovered', {details = string.format('nobody ran it any more; retry %d of %d', retry, of)})
        return 'retried', retry, of
    end
    if not asked_to_stop and policy == 'requeue' and count_of(job[5]) < 1 then
        count_up(id, 'rqxx_recoveries')
        attempt('HSET', job_key(id), 'status', 'queued', 'enqueued_at', now_iso)
        push(origin, id, true)
        note_event(id, 'recovered', {details = 'nobody ran it any more; put back on its queue'})
        return 'requeued', 0, 0
    end
    note_ttl('failed', origin, fail_job(id, origin, final, job[3], job[4], {'type', '2', 'worker_name', '', 'exc_string', exc_string}))
    release_slot(id, job[9])
    if final == 'failed' then add_webhooks(id, job[6], 'failed', job[7], job[8], exc_string) end
    measure('failed', 0, -1)
    count_recovered(final, origin)
    return final, 0, 0
end

local function store_recovered()
    for field, count in pairs(recovered) do attempt('HINCRBY', 'rqxx:totals', field, count) end
    store_metrics(now)
    store_ttls()
    store_batches()
end
