-- Look closer at what `rqxx doctor` suspects, and mend it where asked to.
-- ARGV: 1 kind of finding, 2 "1": mend it, 3 exc_string for abandoned jobs,
--       then for each suspect: key it was found in, id or member, detail, mark
-- Returns: for each {code, mark, note}; code 0 it is not so, 1 it is so, 2 mended, 3 mended in part: ask again
--       mark: what must be the same at a second look, and is compared before anything is changed
-- What is asked and what is changed is one step, so nothing can move in between. On a list longer than `far` only the
-- ends are searched: the middle, which does not change, has been read before.
-- Dynamic keys: see includes/transitions.lua; whatever a suspect names
-- Source: rq/job.py, rq/registry.py, rq/maintenance.py, rq/executions.py (RQ 2.10): what they leave, and what they refuse
--- @include time
--- @include transitions
--- @include metrics
--- @include webhooks
--- @include ttls
--- @include batches
--- @include recovery

local kind, mends, exc_string = ARGV[1], ARGV[2] == '1', ARGV[3]
local far = 10000

local function text(reply) return type(reply) == 'string' and reply or nil end
local function number(reply) return type(reply) == 'number' and reply or 0 end
local function list(reply) return type(reply) == 'table' and not reply.err and reply or {} end
local function is(key, wanted) return attempt('TYPE', key).ok == wanted end
local function ttl_left(key) return number(attempt('TTL', key)) end
local function has_job(id) return attempt('EXISTS', job_key(id)) == 1 end
local function score_of(key, member) return tonumber(text(attempt('ZSCORE', key, member))) end
local function queue_of(key) return string.match(key, '^rq:[a-z]+:(.*)$') end

-- A job as it stands, or nil. `stamp` changes with each of its transitions.
local function job_of(id)
    local fields = attempt('HMGET', job_key(id), 'status', 'origin', 'enqueued_at', 'started_at', 'ended_at', 'worker_name',
        'repeats_left', 'allow_dependency_failures', 'enqueue_at_front', 'ttl', 'timeout', 'result_ttl', 'failure_ttl',
        'rate_limit_key', 'rate_limit_concurrency')
    if fields.err or not has_job(id) then return nil end
    local status = fields[1]
    if not status or status == '' then status = 'created' end
    return {status = status, origin = fields[2] or '', enqueued_at = fields[3] or '', started_at = fields[4] or '',
        worker = fields[6] or '', repeats = fields[7], allows_failure = fields[8] == '1', at_front = fields[9] == '1',
        ttl = fields[10], timeout = fields[11], result_ttl = fields[12], failure_ttl = fields[13],
        limit = fields[14], concurrency = fields[15],
        stamp = table.concat({status, fields[2] or '', fields[3] or '', fields[4] or '', fields[5] or '', fields[6] or ''}, '|')}
end

-- Whether an id is on a list. `unknown`: the answer for the middle of a long one.
local function on_list(key, id, unknown)
    if not is(key, 'list') then return false end
    if attempt('LLEN', key) <= far then return attempt('LPOS', key, id) ~= false end
    if attempt('LPOS', key, id, 'MAXLEN', far / 2) or attempt('LPOS', key, id, 'RANK', -1, 'MAXLEN', far / 2) then return true end
    return unknown
end

-- What marks an entry of a list, set or sorted set; nil where it is not there.
local function entry(key, member)
    local what = attempt('TYPE', key).ok
    if what == 'zset' then return text(attempt('ZSCORE', key, member)) end
    if what == 'list' then return on_list(key, member, true) and 'listed' or nil end
    if what == 'set' then return attempt('SISMEMBER', key, member) == 1 and 'member' or nil end
end

local function remove(key, member)
    local what = attempt('TYPE', key).ok
    if what == 'zset' then return number(attempt('ZREM', key, member)) > 0 end
    if what == 'list' then return number(attempt('LREM', key, 1, member)) > 0 end
    return number(attempt('SREM', key, member)) > 0
end

local function queue_again(id, job, at_front)
    attempt('SADD', 'rq:queues', 'rq:queue:' .. job.origin)
    attempt('HSET', job_key(id), 'status', 'queued')
    push(job.origin, id, at_front)
end

-- Executions that stand for a job: as its own set and the started registry know them.
local function members_of(id, origin, found)
    local members = {}
    for _, execution in ipairs(list(attempt('ZRANGE', 'rq:executions:' .. id, 0, -1))) do members[#members + 1] = id .. ':' .. execution end
    members[#members + 1] = id   -- as RQ 1.x writes it
    if found ~= '' then members[#members + 1] = found end
    return members
end

local function end_member(id, key, member)
    attempt('ZREM', key, member)
    local execution = string.match(member, ':(.*)$')
    if execution then end_execution(id, execution) end
end

-- Whether something still runs a started job.
local function alive(id, job, found)
    local lease = score_of('rqxx:leases', job.worker)
    if lease and lease < now_us - 30000000 then return false end
    for _, member in ipairs(members_of(id, job.origin, found)) do
        local expires = score_of('rq:wip:' .. job.origin, member)
        if expires and expires > now then return true end
    end
    -- The score of an execution is a minute ahead of that in the registry.
    for _, execution in ipairs(list(attempt('ZRANGE', 'rq:executions:' .. id, 0, -1))) do
        if (score_of('rq:executions:' .. id, execution) or 0) - 60 > now then return true end
    end
    -- A synchronous queue runs jobs in the producer, without an execution.
    if job.worker ~= 'sync' then return false end
    local timeout = tonumber(job.timeout) or 180
    return timeout < 0 or iso(now_us - (timeout + 60) * 1000000) < job.started_at
end

-- What a deferred job waits for: ids, and how many of them let it pass, are on their way, have not succeeded, are gone.
local function dependencies_of(id, job)
    local ids = {}
    local named, first = unpack(attempt('HMGET', job_key(id), 'dependency_ids', 'dependency_id'))
    local ok, decoded = pcall(cjson.decode, named or '')
    if ok and type(decoded) == 'table' then
        for _, parent in ipairs(decoded) do if type(parent) == 'string' then ids[#ids + 1] = parent end end
    elseif first and first ~= '' then
        ids[1] = first
    end
    local states = {passed = 0, pending = 0, ended = 0, gone = 0, notes = {}}
    for _, parent in ipairs(ids) do
        local status = text(attempt('HGET', job_key(parent), 'status'))
        local state = 'pending'
        if not has_job(parent) then state = 'gone'
        elseif status and lets_pass(status, job.allows_failure) then state = 'passed'
        elseif status == 'failed' or status == 'stopped' or status == 'canceled' then state = 'ended' end
        states[state] = states[state] + 1
        if (state == 'gone' or state == 'ended') and #states.notes < 3 then
            states.notes[#states.notes + 1] = parent .. ' (' .. (state == 'gone' and 'gone' or status) .. ')'
        end
    end
    return ids, states
end

local function release(id, job, parents)
    attempt('ZREM', 'rq:deferred:' .. job.origin, id)
    attempt('SADD', 'rq:queues', 'rq:queue:' .. job.origin)
    let_go(id, job.origin, job.at_front, job.ttl, job.limit, job.concurrency)
    for _, parent in ipairs(parents) do attempt('SREM', 'rq:job:' .. parent .. ':dependents', id) end
end

-- Each looks at a suspect and returns its mark, how it is mended (nil: not at all), and a note; or nil where nothing is wrong.
local look = {}

look['ghost-id'] = function(key, member)
    local id = string.match(member, '^([^:]*)')
    if has_job(id) then return nil end
    local mark = entry(key, member)
    local score = tonumber(mark)
    -- The job has expired as it should have, and the entry waits for the next maintenance.
    if score and score >= 0 and score <= now and string.find(key, '^rq:f') then return nil end
    -- Somebody still runs what was deleted.
    if score and score > now and string.find(key, '^rq:wip:') then return nil end
    return mark, function()
        if string.find(key, '^rq:wip:') then end_member(id, key, member) return true end
        return remove(key, member)
    end
end

look['expired-entry'] = function(key, id)
    local score = score_of(key, id)
    if has_job(id) or not score or score < 0 or score > now - 3600 then return nil end
    return 'expired', function() return remove(key, id) end
end

look['ghost-in-group'] = function(key, id)
    if has_job(id) then return nil end
    return entry(key, id), function()
        remove(key, id)
        if attempt('EXISTS', key) == 0 then attempt('SREM', 'rq:groups', string.sub(key, 10)) end
        return true
    end
end

-- Names that RQ's loaders refuse.
look['bad-id'] = function(key, id)
    return entry(key, id), function() return remove(key, id) end
end
look['malformed-wip'] = look['bad-id']
look['foreign-member'] = look['bad-id']

local fits = {queue = {queued = true, created = true}, finished = {finished = true}, failed = {failed = true, stopped = true},
    deferred = {deferred = true}, scheduled = {scheduled = true, created = true}, canceled = {canceled = true}}
local known = {created = true, queued = true, deferred = true, scheduled = true, started = true, finished = true, failed = true,
    stopped = true, canceled = true, rate_limited = true, ready_to_enqueue = true}

look['stray-entry'] = function(key, id)
    local job = job_of(id)
    local place = string.match(key, '^rq:([a-z]+):')
    if not job or not fits[place] or not known[job.status] then return nil end
    local right = fits[place][job.status] and (place == 'queue' or job.origin == '' or job.origin == queue_of(key))
    -- A job that is repeated stays where its last run ended.
    if right or ((place == 'finished' or place == 'failed') and job.repeats) then return nil end
    local mark = entry(key, id)
    return mark and mark .. job.stamp, function() return remove(key, id) end, 'it is ' .. job.status
end

look['duplicate-id'] = function(key, id)
    local job = job_of(id)
    if not job then return nil end
    local other = 'rq:queue:' .. job.origin
    local function drop() return number(attempt('LREM', key, -1, id)) > 0 end
    if job.origin ~= '' and other ~= key and on_list(other, id, false) and on_list(key, id, true) then
        return job.stamp, drop, 'also on ' .. other
    end
    -- On a long list this was seen when it was read.
    if not mends and number(attempt('LLEN', key)) > far then return job.stamp, drop end
    if #list(attempt('LPOS', key, id, 'COUNT', 2)) < 2 then return nil end
    return job.stamp, drop
end

look['lost-queued'] = function(_, id)
    local job = job_of(id)
    if not job or job.status ~= 'queued' or job.origin == '' then return nil end
    local queue = 'rq:queue:' .. job.origin
    if on_list(queue, id, false) or on_list(queue .. ':intermediate', id, false) then return nil end
    -- It is being started.
    if attempt('EXISTS', 'rq:executions:' .. id) == 1 or score_of('rq:wip:' .. job.origin, id) then return nil end
    return job.stamp, function()
        if has_rate_limit(job.limit, job.concurrency) and not score_of('rq:rl:' .. job.limit .. ':allowed', id) then
            enter_rate_limit(id, job.limit, job.concurrency)
        else
            queue_again(id, job, true)
        end
        return true
    end
end

look['lost-limited'] = function(_, id)
    local job = job_of(id)
    if not job or job.status ~= 'rate_limited' or job.origin == '' then return nil end
    local limited = has_rate_limit(job.limit, job.concurrency)
    if limited and score_of('rq:rl:' .. job.limit .. ':rate_limited', id) then return nil end
    return job.stamp, function()
        attempt('SADD', 'rq:queues', 'rq:queue:' .. job.origin)
        let_go(id, job.origin, job.at_front, job.ttl, job.limit, job.concurrency)
        return true
    end, not limited and 'it has no limit' or ''
end

look['lost-deferred'] = function(_, id)
    local job = job_of(id)
    if not job or job.status ~= 'deferred' or job.origin == '' or score_of('rq:deferred:' .. job.origin, id) then return nil end
    return job.stamp, function()
        local parents, states = dependencies_of(id, job)
        if #parents > 0 and states.passed == #parents then release(id, job, parents) return true end
        return type(attempt('ZADD', 'rq:deferred:' .. job.origin, now, id)) == 'number'
    end
end

look['lost-scheduled'] = function(_, id)
    local job = job_of(id)
    if not job or job.status ~= 'scheduled' or job.origin == '' or score_of('rq:scheduled:' .. job.origin, id) then return nil end
    return job.stamp, function()
        attempt('SADD', 'rq:queues', 'rq:queue:' .. job.origin)
        return type(attempt('ZADD', 'rq:scheduled:' .. job.origin, now, id)) == 'number'
    end
end

local ended_registry = {finished = 'finished', failed = 'failed', stopped = 'failed', canceled = 'canceled'}
look['lost-ended'] = function(_, id)
    local job = job_of(id)
    local registry = job and ended_registry[job.status]
    if not registry or job.origin == '' or score_of('rq:' .. registry .. ':' .. job.origin, id) then return nil end
    local left = ttl_left(job_key(id))
    if left >= 0 and left < 60 then return nil end   -- about to expire, and out of its registry already
    return job.stamp, function()
        local score = now
        if registry ~= 'canceled' then
            local ttl = left > 0 and left or ttl_of(registry == 'finished' and job.result_ttl or job.failure_ttl)
            if registry == 'finished' then ttl = ttl or 500 else ttl = ttl or default_failure_ttl end
            if left < 0 then expire_job(id, math.max(ttl, -1) == 0 and 60 or ttl, true) end
            if ttl < 0 then score = registry == 'finished' and '+inf' or -1 else score = now + math.max(ttl, 60) end
        end
        return type(attempt('ZADD', 'rq:' .. registry .. ':' .. job.origin, score, id)) == 'number'
    end, 'it is ' .. job.status
end

look['dead-started'] = function(_, id, member)
    local job = job_of(id)
    if not job or job.status ~= 'started' or job.origin == '' or alive(id, job, member) then return nil end
    return job.stamp, function()
        for _, entry_of in ipairs(members_of(id, job.origin, member)) do end_member(id, 'rq:wip:' .. job.origin, entry_of) end
        attempt('SREM', 'rq:worker:' .. job.worker .. ':executions', member)
        recover_job(id, job.origin, 'requeue', exc_string)
        return true
    end, job.worker ~= '' and 'worker ' .. job.worker or ''
end

look['orphaned-dependent'] = function(_, id)
    local job = job_of(id)
    if not job or job.status ~= 'deferred' or job.origin == '' then return nil end
    local parents, states = dependencies_of(id, job)
    if #parents == 0 or states.passed < #parents then return nil end
    return job.stamp, function() release(id, job, parents) return true end
end

look['waits-for-gone'] = function(_, id)
    local job = job_of(id)
    if not job or job.status ~= 'deferred' then return nil end
    local parents, states = dependencies_of(id, job)
    if #parents == 0 then
        if attempt('EXISTS', 'rq:job::' .. id .. ':dependencies') == 1 then return nil end
        return job.stamp, nil, 'it does not say for what'
    end
    if states.pending > 0 or states.gone == 0 then return nil end
    return job.stamp, nil, 'waits for ' .. table.concat(states.notes, ', ')
end

look['waits-for-failed'] = function(_, id)
    local job = job_of(id)
    if not job or job.status ~= 'deferred' then return nil end
    local _, states = dependencies_of(id, job)
    if states.pending > 0 or states.gone > 0 or states.ended == 0 then return nil end
    return job.stamp, nil, 'waits for ' .. table.concat(states.notes, ', ')
end

look['missing-dependencies'] = function(_, id)
    local job = job_of(id)
    if not job or job.status ~= 'deferred' then return nil end
    local parents = dependencies_of(id, job)
    local own = 'rq:job::' .. id .. ':dependencies'
    if #parents == 0 then
        parents = list(attempt('SMEMBERS', own))
        if #parents == 0 then return nil end
        table.sort(parents)
        return job.stamp, function()
            attempt('HSET', job_key(id), 'dependency_ids', cjson.encode(parents), 'dependency_id', parents[1])
            return true
        end, 'no dependency_ids'
    end
    local missing = {}
    for _, parent in ipairs(parents) do
        local status = text(attempt('HGET', job_key(parent), 'status'))
        -- One that has ended does not look at who waits for it.
        if has_job(parent) and status ~= 'finished' then
            for key, member in pairs({[own] = parent, ['rq:job:' .. parent .. ':dependents'] = id}) do
                if attempt('SISMEMBER', key, member) == 0 then missing[#missing + 1] = {key, member} end
            end
        end
    end
    if #missing == 0 then return nil end
    return job.stamp, function()
        for _, pair in ipairs(missing) do attempt('SADD', pair[1], pair[2]) end
        return true
    end, 'no entry in ' .. missing[1][1]
end

look['stray-dependent'] = function(key, id)
    local job = job_of(id)
    if not job or attempt('SISMEMBER', key, id) ~= 1 then return nil end
    local ids, first = unpack(attempt('HMGET', job_key(id), 'dependency_ids', 'dependency_id'))
    if (ids and ids ~= '') or (first and first ~= '') then return nil end
    local own = 'rq:job::' .. id .. ':dependencies'
    if job.status == 'deferred' and attempt('EXISTS', own) == 1 then return nil end
    return job.stamp, function()
        local parent = string.match(key, '^rq:job:(.*):dependents$')
        if job.status == 'deferred' then
            attempt('HSET', job_key(id), 'dependency_ids', cjson.encode({parent}), 'dependency_id', parent)
            attempt('SADD', own, parent)
            return true
        end
        return remove(key, id)
    end
end

look['stale-dependent'] = function(key, id)
    if has_job(id) then return nil end
    return entry(key, id), function() return remove(key, id) end
end

look['leftover-set'] = function(key, id)
    if has_job(id) or not is(key, 'set') or ttl_left(key) >= 0 then return nil end
    for _, child in ipairs(string.find(key, ':dependents$') and list(attempt('SMEMBERS', key)) or {}) do
        if text(attempt('HGET', job_key(child), 'status')) == 'deferred' then return nil end
    end
    return 'set', function() return attempt('DEL', key) == 1 end
end

look['orphaned-execution'] = function(_, id, execution)
    local job = job_of(id)
    local listed, member = score_of('rq:executions:' .. id, execution), id .. ':' .. execution
    if not listed and attempt('EXISTS', 'rq:execution:' .. member) == 0 then return nil end
    if job and (job.status == 'started' or score_of('rq:wip:' .. job.origin, member)) then return nil end
    -- Canceled while it runs, which its rate limit's slot shows.
    if job and job.limit and listed and listed > now and score_of('rq:rl:' .. job.limit .. ':allowed', id) then return nil end
    return job and job.stamp or 'gone', function() end_execution(id, execution) return true end,
        job and 'it is ' .. job.status or 'it is gone'
end

look['broken-execution'] = function(_, id, execution)
    local job = job_of(id)
    if not job or not score_of('rq:executions:' .. id, execution) then return nil end
    local expires = score_of('rq:wip:' .. job.origin, id .. ':' .. execution)
    if not expires or expires <= now then
        -- Only what a running job still lists is in anybody's way.
        if job.status ~= 'started' or attempt('EXISTS', 'rq:execution:' .. id .. ':' .. execution) == 1 then return nil end
        return job.stamp, function() end_execution(id, execution) return true end, 'execution ' .. execution
    end
    local key = 'rq:execution:' .. id .. ':' .. execution
    local created, seen = unpack(attempt('HMGET', key, 'created_at', 'last_heartbeat'))
    if created and seen then return nil end
    return job.stamp, function()
        attempt('HSET', key, 'id', execution, 'created_at', created or now_float, 'last_heartbeat', seen or now_float)
        attempt('EXPIRE', key, math.max(ttl_left('rq:executions:' .. id), 60))
        return true
    end, 'execution ' .. execution
end

look['stray-wip'] = function(key, id, member)
    local job = job_of(id)
    local expires = score_of(key, member)
    if not job or not expires or not known[job.status] or job.status == 'started' then return nil end
    -- Just being started, or canceled and asked to stop.
    if (job.status == 'queued' or job.status == 'canceled' or job.status == 'created') and expires > now then return nil end
    return job.stamp, function() end_member(id, key, member) return true end, 'it is ' .. job.status
end

look['mixed-versions'] = function(key, id)
    return entry(key, id) and 'bare', nil
end

-- Whether a worker may be about to start what it took from a queue. RQ's grace is a minute from its first mark on.
local function being_taken(key, id, job)
    if attempt('EXISTS', 'rq:executions:' .. id) == 1 then return true end
    local queue = string.match(key, '^rq:queue:(.*):intermediate$') or ''
    if number(attempt('SCARD', 'rq:workers:' .. queue)) == 0 then return false end
    local seen = tonumber(text(attempt('GET', key .. ':first_seen:' .. id)))
    return not seen or now - seen <= 60 or iso(seen * 1000000) < job.enqueued_at
end

look['stuck-intermediate'] = function(key, id)
    local job = job_of(id)
    if not job or not on_list(key, id, true) then return nil end
    if job.status == 'queued' and being_taken(key, id, job) then return nil end
    return job.stamp, function()
        if not remove(key, id) then return false end
        attempt('DEL', key .. ':first_seen:' .. id)
        if job.status == 'queued' and job.origin ~= '' and not on_list('rq:queue:' .. job.origin, id, false) then
            queue_again(id, job, true)
        end
        return true
    end, 'it is ' .. job.status
end

look['stale-mark'] = function(key, id)
    local seen = tonumber(text(attempt('GET', key)))
    local intermediate = string.match(key, '^(.*):first_seen:')
    if not seen or now - seen < 60 or on_list(intermediate, id, false) then return nil end
    return tostring(seen), function() return attempt('DEL', key) == 1 end
end

look['leaked-slot'] = function(key, id)
    local job = job_of(id)
    local held = entry(key, id)
    if not held or (job and (job.status == 'queued' or job.status == 'started')) then return nil end
    -- Canceled or deleted while it runs.
    if number(attempt('ZCOUNT', 'rq:executions:' .. id, '(' .. text_of(now), '+inf')) > 0 then return nil end
    return held .. (job and job.stamp or ''), function()
        release_slot(id, string.match(key, '^rq:rl:(.*):allowed$'))
        return not score_of(key, id)
    end, job and 'it is ' .. job.status or 'it is gone'
end

look['leftover-results'] = function(key, id)
    if has_job(id) or not is(key, 'stream') or ttl_left(key) >= 0 then return nil end
    return tostring(attempt('XLEN', key)), function() return attempt('UNLINK', key) == 1 end
end

-- What Python's loader refuses.
local function is_base64(value)
    return #value % 4 == 0 and not string.find(string.sub(value, 1, 1000), '[^%w+/=]') and
        not string.find(string.sub(value, -1000, -3), '[^%w+/]') and string.find(string.sub(value, -2), '^[%w+/=]*$')
end
local digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
-- Whether the bytes begin as zlib's do (RFC 1950).
local function is_zlib(value)
    local sum = 0
    for i = 1, 3 do sum = sum * 64 + (string.find(digits, string.sub(value, i, i), 1, true) or 65) - 1 end
    local header = math.floor(sum / 4)
    local first = math.floor(header / 256)
    return header % 31 == 0 and first % 16 == 8 and first < 128
end
look['bad-result'] = function(_, id)
    local key = 'rq:results:' .. id
    local bad, why = {}, nil
    for _, item in ipairs(list(attempt('XREVRANGE', key, '+', '-', 'COUNT', 20))) do
        local fields = {}
        for i = 1, #item[2], 2 do fields[item[2][i]] = item[2][i + 1] end
        local reason
        if not fields.type or not string.find(fields.type, '^[1-5]$') then reason = 'type'
        elseif fields.exc_string and not (is_base64(fields.exc_string) and is_zlib(fields.exc_string)) then reason = 'exc_string'
        elseif fields.return_value and not is_base64(fields.return_value) then reason = 'return_value' end
        if reason then bad[#bad + 1] = item[1] why = reason end
    end
    if #bad == 0 then return nil end
    return bad[1], function() return number(attempt('XDEL', key, unpack(bad))) > 0 end, why
end

look['unknown-status'] = function(_, id)
    local status = text(attempt('HGET', job_key(id), 'status'))
    if not status or status == '' or known[status] then return nil end
    return status, nil, 'it is "' .. string.sub(status, 1, 40) .. '"'
end

local unit = {s = 1, m = 60, h = 3600, d = 86400}
look['bad-field'] = function(value, id, field)
    local key = job_key(id)
    if text(attempt('HGET', key, field)) ~= value then return nil end
    local fix = function() return attempt('HDEL', key, field) == 1 end
    if string.find(field, '_at$') or field == 'last_heartbeat' then
        fix = function() return attempt('HSET', key, field, '') == 0 end
    elseif field == 'retry_intervals' or field == 'repeat_intervals' then
        fix = function() return attempt('HSET', key, field, '[0]') == 0 end
    elseif field == 'dependency_ids' then
        -- What it waits for may be known from the set beside it; who does not wait needs none.
        local waits = text(attempt('HGET', key, 'status')) == 'deferred'
        local parents = list(attempt('SMEMBERS', 'rq:job::' .. id .. ':dependencies'))
        table.sort(parents)
        if #parents > 0 then
            fix = function() return attempt('HSET', key, field, cjson.encode(parents), 'dependency_id', parents[1]) end
        elseif waits then
            fix = nil
        end
    else
        local count, letter = string.match(string.lower(value), '^(%d+)([smhd])$')
        if count and #count < 10 then
            fix = function() return attempt('HSET', key, field, text_of(tonumber(count) * unit[letter])) == 0 end
        end
    end
    return value, fix, field .. '="' .. string.sub(value, 1, 40) .. '"'
end

look['old-fields'] = function(_, id, field)
    return attempt('HEXISTS', job_key(id), field) == 1 and field or nil, nil, field
end

look['no-data'] = function(_, id)
    return has_job(id) and attempt('HEXISTS', job_key(id), 'data') == 0 and 'partial' or nil
end

look['no-origin'] = function(_, id)
    local job = job_of(id)
    return job and job.origin == '' and job.stamp or nil
end

look['missing-group'] = function(_, id, group)
    local key = 'rq:group:' .. group
    if text(attempt('HGET', job_key(id), 'group_id')) ~= group or attempt('EXISTS', key) == 1 then return nil end
    return group, function()
        attempt('SADD', 'rq:groups', group)
        return attempt('SADD', key, id) == 1
    end, 'group ' .. group
end

look['bad-worker'] = function(value, key, field)
    if text(attempt('HGET', key, field)) ~= value then return nil end
    return value, function() return attempt('HDEL', key, field) == 1 end, field .. '="' .. string.sub(value, 1, 40) .. '"'
end

look['gone-worker'] = function(key, member)
    if attempt('EXISTS', member) == 1 then return nil end
    return entry(key, member), function() return remove(key, member) end
end

look['stale-lock'] = function(key)
    local left = ttl_left(key)
    if attempt('EXISTS', key) == 0 or left > 779 then return nil end
    return 'lock', function() return attempt('DEL', key) == 1 end, left >= 0 and 'for ' .. (899 - left) .. ' s' or 'for ever'
end

look['dead-scheduler'] = function(key, owner)
    if text(attempt('GET', key)) ~= owner or attempt('EXISTS', 'rq:scheduler:' .. owner) == 1 then return nil end
    -- A scheduler renews its lock each second, one of RQ 1.x too, which has no record.
    if (score_of('rqxx:schedulers', owner) or 0) > now_us or ttl_left(key) > 50 then return nil end
    return owner, function() return attempt('DEL', key) == 1 end, 'scheduler ' .. owner
end

look['compact-leftover'] = function(key)
    local length = number(attempt('LLEN', key))
    if length == 0 then return nil end
    return text_of(length), function()
        -- From its end, each to the front: so the order stays.
        for _ = 1, 20 do
            local id = text(attempt('RPOP', key))
            if not id then return true end
            local job = job_of(id)
            if job and job.status == 'queued' and job.origin ~= '' and not on_list('rq:queue:' .. job.origin, id, false) then
                queue_again(id, job, true)
            end
        end
        return true, attempt('EXISTS', key) == 1
    end, length .. ' ids'
end

look['unregistered-queue'] = function(key)
    if attempt('SISMEMBER', 'rq:queues', key) ~= 0 or number(attempt('LLEN', key)) == 0 then return nil end
    return 'list', function() return attempt('SADD', 'rq:queues', key) == 1 end
end

look['wrong-type'] = function(key, wanted)
    local what = attempt('TYPE', key).ok
    if what == 'none' or what == wanted then return nil end
    return what, nil, 'it is a ' .. what .. ', not a ' .. wanted
end

local answers, wrote = {}, false
for at = 4, #ARGV, 4 do
    local mark, fix, note = look[kind](ARGV[at], ARGV[at + 1], ARGV[at + 2])
    local code = mark and 1 or 0
    if mark and fix and mends and mark == ARGV[at + 3] then
        if not wrote then   -- the first write, see transitions
            wrote = true
            redis.call('SET', 'rqxx:doctor', now_iso, 'EX', 60)
        end
        local done, more = fix()
        if done then code = more and 3 or 2 end
        if more then mark = text_of(number(attempt('LLEN', ARGV[at]))) end
    end
    answers[#answers + 1] = {code, mark or '', note or ''}
end
if wrote then store_recovered() end
return answers
