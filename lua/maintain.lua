-- Put in order what stock workers and crashes leave behind of a queue, a bounded part at a time.
--
-- Never judges a job that may be alive: what runs is left to lua/recover.lua.
-- KEYS: 1 when this queue was last seen to
-- ARGV: 1 queue, 2 seconds between passes, 3 how many entries of a kind to look at
-- Returns: {} when another process saw to it just now; else {{what, count}...}, what: "expired" entries of ended jobs,
--       "requeued" ids from the intermediate queue, "dropped" ids without a job or in the wrong place, "released"
--       dependents, "workers" that are gone
-- Dynamic keys: see includes/transitions.lua; intermediate queue, workers of the queue
-- Source: rq/registry.py cleanup, rq/maintenance.py clean_intermediate_queue, rq/worker/base.py (RQ 2.10); the
--       differences are W2 to W4, W8, W24, W25, W36 in docs/compatibility.md
--- @include time
--- @include transitions
--- @include stock_cleanup

if not redis.call('SET', KEYS[1], now_us, 'EX', ARGV[2], 'NX') then return {} end
local queue, most = ARGV[1], tonumber(ARGV[3])
local list = 'rq:queue:' .. queue
local counts = {}
local function count(what, n)
    if n and n > 0 then counts[what] = (counts[what] or 0) + n end
end
local function is(key, kind) return attempt('TYPE', key).ok == kind end
local function number_of(reply) return type(reply) == 'number' and reply or 0 end

-- Entries whose jobs have expired.
for _, registry in ipairs({'rq:finished:' .. queue, 'rq:failed:' .. queue}) do
    if is(registry, 'zset') then
        local ids = attempt('ZRANGEBYSCORE', registry, 0, now, 'LIMIT', 0, most)
        if #ids > 0 then count('expired', number_of(attempt('ZREM', registry, unpack(ids)))) end
    end
end

-- Ids that a worker popped and never started. RQ waits for 60 s and fails them; they come back here.
local function see_to_intermediate()
    local intermediate = list .. ':intermediate'
    if not is(intermediate, 'list') or stock_cleans(queue) then return end
    for _, id in ipairs(attempt('LRANGE', intermediate, 0, most - 1)) do
        local job = attempt('HMGET', job_key(id), 'status', 'enqueued_at', 'data', 'origin')
        local seen_key = intermediate .. ':first_seen:' .. id
        if job.err or not job[3] or job[1] ~= 'queued' then
            count('dropped', number_of(attempt('LREM', intermediate, 1, id)))
            attempt('DEL', seen_key)
        elseif not is_held(id, job[4] or queue) then
            local seen = tonumber(attempt('GET', seen_key) or nil)
            -- A mark that is older than the job's place on the queue is of another time (W4).
            if not seen or iso(seen * 1000000) < (job[2] or '') then
                attempt('SET', seen_key, now_float, 'EX', 86400)
            elseif now - seen > 60 then
                attempt('LREM', intermediate, 1, id)
                attempt('DEL', seen_key)
                push(queue, id, true)
                count('requeued', 1)
            end
        end
    end
end
see_to_intermediate()

-- The part of a registry that is looked at in this pass; the next pass goes on from there.
local function some_of(registry)
    if not is(registry, 'zset') then return {} end
    local cursor_key = KEYS[1] .. ':' .. registry
    local reply = attempt('ZSCAN', registry, attempt('GET', cursor_key) or '0', 'COUNT', most)
    if reply.err then return {} end
    attempt('SET', cursor_key, reply[1], 'EX', 86400)
    return reply[2]
end

-- Deferred jobs that nothing holds back any more: the one who should have released them died, or came too early.
local deferred = 'rq:deferred:' .. queue
local entries = some_of(deferred)
for i = 1, #entries, 2 do
    local id, since = entries[i], tonumber(entries[i + 1])
    local job = attempt('HMGET', job_key(id), 'status', 'dependency_ids', 'allow_dependency_failures', 'enqueue_at_front',
        'ttl', 'data', 'rate_limit_key', 'rate_limit_concurrency')
    -- An id whose deferred job expired may be in use for another job.
    if not job.err and (not job[6] or job[1] ~= 'deferred' and now - since > 60) then
        count('dropped', number_of(attempt('ZREM', deferred, id)))
    elseif not job.err and job[1] == 'deferred' and now - since > 60 then
        local ok, parents = pcall(cjson.decode, job[2] or '')
        local free = ok and type(parents) == 'table' and #parents > 0
        for _, parent in ipairs(free and parents or {}) do
            -- One that is gone may have failed long ago: that is for a person to decide.
            local status = type(parent) == 'string' and attempt('HGET', job_key(parent), 'status') or nil
            if type(status) ~= 'string' or not lets_pass(status, job[3] == '1') then free = false break end
        end
        if free and attempt('ZREM', deferred, id) == 1 then
            let_go(id, queue, job[4] == '1', job[5], job[7], job[8])
            for _, parent in ipairs(parents) do attempt('SREM', 'rq:job:' .. parent .. ':dependents', id) end
            count('released', 1)
        end
    end
end

local canceled = 'rq:canceled:' .. queue
entries = some_of(canceled)
for i = 1, #entries, 2 do
    if attempt('EXISTS', job_key(entries[i])) == 0 then
        count('dropped', number_of(attempt('ZREM', canceled, entries[i])))
    end
end

-- Jobs that RQ's main branch was about to queue when its worker died.
local ready = 'rq:ready:' .. queue
if is(ready, 'zset') then
    for _, id in ipairs(attempt('ZRANGEBYSCORE', ready, '-inf', now - 10, 'LIMIT', 0, most)) do
        local status, front, ttl, limit, concurrency = unpack(attempt('HMGET', job_key(id), 'status', 'enqueue_at_front', 'ttl',
            'rate_limit_key', 'rate_limit_concurrency'))
        if attempt('ZREM', ready, id) == 1 and status == 'ready_to_enqueue' then
            let_go(id, queue, front == '1', ttl, limit, concurrency)
            count('released', 1)
        end
    end
end

-- Workers whose record has expired.
local workers = 'rq:workers:' .. queue
if is(workers, 'set') then
    for _, worker in ipairs(attempt('SRANDMEMBER', workers, most)) do
        if attempt('EXISTS', worker) == 0 then
            attempt('SREM', workers, worker)
            attempt('SREM', 'rq:workers', worker)
            count('workers', 1)
        end
    end
end

store_changes()

local report = {}
for what, n in pairs(counts) do report[#report + 1] = {what, n} end
return report
