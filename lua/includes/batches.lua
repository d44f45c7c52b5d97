-- Batches: groups whose jobs' ends are counted, with what is to follow. Needs time.lua, transitions.lua.
--
-- `rqxx:batch:<id>`, a hash: total, finished, failed, stopped, canceled, deleted (jobs); state (open, running, complete);
--   created_at, sealed_at, completed_at, first_failure_at; open_for, open_until (us), ttl (s, after completion); parent,
--   children_total, children_waiting, children_failed; on_complete, on_success, on_first_failure (ids of the jobs to
--   follow); wants (cancel, retry: under way), driven_until (us, by whom asked for it), retry_before (us), retry_cursor;
--   window_at, window_done, last_at, last_done (us and jobs, for the rate); pending_cursor, unsuccessful_cursor
-- `…:pending`: set of the jobs that have not ended. `…:unsuccessful`: hash, job -> "<outcome> <when, us>".
-- `…:children`: hash, batch -> waiting, success, failure. `…:on_complete` and so on: hash of a job that is not enqueued yet.
-- `rqxx:batches`: ids by creation (us). `rqxx:batches:watched`: those that are not complete, or not successful.
-- total = finished + failed + stopped + canceled + deleted + jobs that are pending, at any moment.
local callbacks = {'on_complete', 'on_success', 'on_first_failure'}
local has_ended = {finished = true, failed = true, stopped = true, canceled = true}
local deepest = 16   -- Batches in batches.

local function batch_key(id) return 'rqxx:batch:' .. id end
local function us_text(us) return string.format('%.0f', us) end

local batches = {}   -- id -> what this script changes of it, or false for a group that is no batch

local function batch_of(group)
    local batch = batches[group]
    if batch == nil then
        batch = string.find(group, '^[%w_-]+$') and attempt('HEXISTS', batch_key(group), 'total') == 1 and {counts = {}}
        batches[group] = batch
    end
    return batch
end

local function count_in_batch(batch, outcome, n)
    batch.counts[outcome] = (batch.counts[outcome] or 0) + n
end

-- A job's end counts once: who takes it out of the pending ones counts it. One that has ended otherwise before, and was
-- brought back by a stock client, changes sides.
local function count_end(group, id, outcome)
    local batch = batch_of(group)
    if not batch then return end
    local unsuccessful = batch_key(group) .. ':unsuccessful'
    if attempt('SREM', batch_key(group) .. ':pending', id) ~= 1 then
        local before = attempt('HGET', unsuccessful, id)
        before = type(before) == 'string' and string.match(before, '^%a+')
        if not before or before == outcome or outcome == 'deleted' then return end
        count_in_batch(batch, before, -1)
        if outcome == 'finished' then attempt('HDEL', unsuccessful, id) end
    end
    count_in_batch(batch, outcome, 1)
    if outcome ~= 'finished' then attempt('HSET', unsuccessful, id, outcome .. ' ' .. us_text(now_us)) end
    if outcome == 'failed' or outcome == 'stopped' then batch.failed = true end
end

-- An ended job of a batch is on its way again.
local function note_return(group, id)
    local batch = group and group ~= '' and batch_of(group)
    if not batch then return end
    local unsuccessful = batch_key(group) .. ':unsuccessful'
    local before = attempt('HGET', unsuccessful, id)
    before = type(before) == 'string' and string.match(before, '^%a+')
    if not before then return end
    attempt('HDEL', unsuccessful, id)
    attempt('SADD', batch_key(group) .. ':pending', id)
    count_in_batch(batch, before, -1)
end

-- Enqueues a job that was prepared with a batch; what has been enqueued is not there any more.
local function enqueue_prepared(batch, what)
    local key = batch_key(batch)
    local id = attempt('HGET', key, what)
    if type(id) ~= 'string' or attempt('RENAMENX', key .. ':' .. what, job_key(id)) ~= 1 then return end
    local origin, front, ttl = unpack(attempt('HMGET', job_key(id), 'origin', 'enqueue_at_front', 'ttl'))
    attempt('PERSIST', job_key(id))
    attempt('HSET', job_key(id), 'status', 'queued', 'created_at', now_iso, 'enqueued_at', now_iso)
    expire_job(id, ttl_of(ttl), false)
    attempt('SADD', 'rq:queues', 'rq:queue:' .. origin)
    push(origin, id, front == '1')
end

local function for_each_key(batch, command, ...)
    local key = batch_key(batch)
    for _, suffix in ipairs({'', ':pending', ':unsuccessful', ':children'}) do attempt(command, key .. suffix, ...) end
    for _, what in ipairs(callbacks) do attempt(command, key .. ':' .. what, ...) end
end

-- Tells a parent how a batch in it fares. Returns whether that is news.
local function tell_parent(parent, id, state)
    local children = batch_key(parent) .. ':children'
    local before = attempt('HGET', children, id)
    if type(before) ~= 'string' or before == state then return false end
    attempt('HSET', children, id, state)
    local waiting = (state == 'waiting' and 1 or 0) - (before == 'waiting' and 1 or 0)
    local failed = (state == 'failure' and 1 or 0) - (before == 'failure' and 1 or 0)
    if waiting ~= 0 then attempt('HINCRBY', batch_key(parent), 'children_waiting', waiting) end
    if failed ~= 0 then attempt('HINCRBY', batch_key(parent), 'children_failed', failed) end
    return true
end

local function note_first_failure(id)
    for _ = 1, deepest do
        if attempt('HSETNX', batch_key(id), 'first_failure_at', now_iso) ~= 1 then return end
        enqueue_prepared(id, 'on_first_failure')
        id = attempt('HGET', batch_key(id), 'parent')
        if type(id) ~= 'string' or not batch_of(id) then return end
    end
end

-- Looks whether a batch is complete (or is not any more), and its parents with it.
local function conclude(id)
    for _ = 1, deepest do
        local key = batch_key(id)
        local batch = attempt('HMGET', key, 'state', 'failed', 'stopped', 'canceled', 'deleted', 'children_waiting',
            'children_failed', 'parent', 'ttl', 'total', 'last_at', 'last_done')
        local state, parent = batch[1], batch[8]
        if not state then return end
        local pending = attempt('SCARD', key .. ':pending')
        if type(pending) ~= 'number' then return end
        local done, last_at = count_of(batch[10]) - pending, tonumber(batch[11] or nil)
        if not last_at or now_us - last_at > 10000000 then
            attempt('HSET', key, 'last_at', us_text(now_us), 'last_done', done)
            if last_at then attempt('HSET', key, 'window_at', us_text(last_at), 'window_done', batch[12]) end
        end
        local complete = state ~= 'open' and pending == 0 and count_of(batch[6]) == 0
        local news = 'waiting'
        if complete then
            local success = true
            for i = 2, 7 do success = success and count_of(batch[i]) == 0 end
            news = success and 'success' or 'failure'
            if state ~= 'complete' then
                attempt('HSET', key, 'state', 'complete', 'completed_at', now_iso)
                enqueue_prepared(id, 'on_complete')
            end
            if success then
                enqueue_prepared(id, 'on_success')
                attempt('SREM', 'rqxx:batches:watched', id)
            end
            for_each_key(id, 'EXPIRE', text_of(math.max(ttl_of(batch[9]) or 1, 1)))
        elseif state == 'complete' then
            attempt('HSET', key, 'state', 'running')
            attempt('HDEL', key, 'completed_at')
            attempt('SADD', 'rqxx:batches:watched', id)
            for_each_key(id, 'PERSIST')
        end
        if not parent or not batch_of(parent) or not tell_parent(parent, id, news) then return end
        id = parent
    end
end

-- Has the batches in one that fare so (waiting, failure) canceled or retried too, whoever does it.
local function ask_of_children(id, fare, wants)
    local children = attempt('HGETALL', batch_key(id) .. ':children')
    for i = 1, children.err and 0 or #children, 2 do
        local child = children[i]
        if children[i + 1] == fare and batch_of(child) and attempt('HGET', batch_key(child), 'wants') ~= 'cancel' then
            attempt('HSET', batch_key(child), 'wants', wants, 'driven_until', us_text(now_us + 5000000), 'retry_before',
                us_text(now_us), 'retry_cursor', '0')
        end
    end
end

-- The end of a script that ends jobs or brings some back; tells of all that it has changed.
local function store_batches()
    for _, ended in ipairs(noted_ends) do count_end(ended[1], ended[2], ended[3]) end
    noted_ends = {}
    local touched = {}
    for id, batch in pairs(batches) do
        if batch and next(batch.counts) then touched[#touched + 1] = id end
    end
    for _, id in ipairs(touched) do
        for outcome, n in pairs(batches[id].counts) do
            if n ~= 0 then attempt('HINCRBY', batch_key(id), outcome, n) end
        end
        batches[id].counts = {}
    end
    for _, id in ipairs(touched) do
        if batches[id].failed then note_first_failure(id) end
        conclude(id)
    end
    store_changes()
end
