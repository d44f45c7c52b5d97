-- Enqueue a job unless its deduplication key or the idempotency key of its request says otherwise, in one step with what
-- both remember. See includes/placing.lua for where the job goes.
-- KEYS: 1 queue list, 2 state of the deduplication key, 3 record of the request, 4 which deduplication keys there are
-- ARGV: 1 job id, 2 queue, 3 "L" front | "R" back, 4 "1" unique (any job of this id is in the way) | "L" with a
--       rate limit, 5 ttl or "",
--       6 when it is due (epoch seconds) or "", 7 group or "", 8 how many dependencies, 9 mode of the deduplication or "",
--       10 its key, 11 its period in seconds or "", 12 most delay of a debounced job in seconds or "",
--       13 what the request asks for, in short, or "", 14 for how many seconds its answer is remembered,
--       then ids of dependencies, then field, value, ...
-- Returns: {code, status, job id, "1" it took the place of a job that waited, "1" told again}; code 0: no job was written,
--       because of that job in that status; 1 queued, 2 scheduled, 3 deferred, 4 rate_limited, 5: the group is a
--       batch, which takes no such jobs; 6: the request's key belongs to another request
-- State of a key (hash): `job`, the last one that was let in; `until` (in us), before which a throttled key lets nothing in;
--       `first` (in us), when the first of a row of debounced jobs came; `since` (in s), when `job` was let in.
-- Record of a request (hash): `asked`, `code`, `status`, `job`, `replaced`.
-- Dynamic keys: see includes/transitions.lua; of the jobs that it depends on and of the one before
--- @include time
--- @include transitions
--- @include due
--- @include lanes
--- @include batches
--- @include placing
local id, queue, list = ARGV[1], ARGV[2], KEYS[1]
local count = tonumber(ARGV[8])
local mode, period, most_delay, asked = ARGV[9], tonumber(ARGV[11]), tonumber(ARGV[12]), ARGV[13]
local first_dependency = 15
local job = {queue = queue, at_front = ARGV[3] == 'L', limited = ARGV[4] == 'L', ttl = ARGV[5], due = ARGV[6], group = ARGV[7],
    dependencies = arguments(first_dependency, count)}
local ended = {finished = true, failed = true, stopped = true, canceled = true}
local kept_for = 30 * 86400   -- of a state that no janitor looks after

-- Fields of a hash of ours; as if it were not there where somebody has put something else.
local function read(key, ...)
    local fields = redis.pcall('HMGET', key, ...)
    return fields.err and {} or fields
end
local function moment_of(us) return whole(us, 0, 10000000000000000) end
local function write(key, seconds, ...)
    if attempt('EXISTS', key) == 1 then attempt('DEL', key) end   -- no write where there is none: the next may be the first
    redis.call('HSET', key, ...)
    attempt('EXPIRE', key, text_of(seconds))
end

-- Whether a stock scheduler may hold a copy of this job, which it would write over a new one.
local function may_be_on_its_way(holder, origin)
    local due = tonumber(attempt('ZSCORE', 'rq:scheduled:' .. origin, holder))
    return not due or has_stock_scheduler(origin, due)
end

-- Whether a job still stands where it waits, so that whoever takes it will read what is written now. A stock worker has
-- taken a job off its queue before its status says so.
local lane_of_holder
local function stands(holder, status, origin)
    if is_held(holder, origin) then return false end
    if status == 'queued' then
        lane_of_holder = lane_with(origin, holder)
        -- Mostly it is near one of the ends.
        local waiting = 'rq:queue:' .. origin
        return lane_of_holder ~= nil or type(attempt('LPOS', waiting, holder, 'MAXLEN', 1000)) == 'number'
            or type(attempt('LPOS', waiting, holder, 'RANK', -1)) == 'number'
    end
    if status == 'scheduled' then return not may_be_on_its_way(holder, origin) end
    return status == 'deferred'
end

local function leave_place(holder, status, origin, group)
    forget_dependencies(holder)
    attempt('DEL', 'rq:job::' .. holder .. ':dependencies')
    if status == 'queued' then
        if lane_of_holder then
            leave_lane(lane_of_holder, origin, holder)
            count_in_lanes(origin, -1)
        elseif not job.keeps_place then
            attempt('LREM', 'rq:queue:' .. origin, -1, holder)
        end
    else
        attempt('ZREM', 'rq:' .. status .. ':' .. origin, holder)
    end
    if group and group ~= '' and group ~= job.group then
        attempt('SREM', 'rq:group:' .. group, holder)
        if attempt('EXISTS', 'rq:group:' .. group) == 0 then attempt('SREM', 'rq:groups', group) end
    end
    attempt('DEL', job_key(holder))
    attempt('PERSIST', 'rq:job:' .. holder .. ':dependents')   -- as long as the new one, which still has them
end

local function answer(code, status, of, replaced)
    if asked ~= '' then
        write(KEYS[3], tonumber(ARGV[14]), 'asked', asked, 'code', code, 'status', status, 'job', of, 'replaced', replaced)
    end
    return {code, status, of, replaced, '0'}
end

if job.group ~= '' and batch_of(job.group) then return {5, 'one that takes no such jobs', '', '0', '0'} end
if asked ~= '' then
    local earlier = read(KEYS[3], 'asked', 'code', 'status', 'job', 'replaced')
    if earlier[1] and tonumber(earlier[2]) and earlier[3] and earlier[4] and earlier[5] then
        if earlier[1] ~= asked then return {6, '', '', '0', '0'} end
        return {tonumber(earlier[2]), earlier[3], earlier[4], earlier[5], '1'}
    end
end

local state = mode ~= '' and read(KEYS[2], 'job', 'until', 'first') or {}
local holder, locked_until, first = state[1], moment_of(state[2]), moment_of(state[3])
local before = holder and read(job_key(holder), 'status', 'origin', 'group_id') or {}
local status, origin = before[1], before[2] or queue
local replaces, exists = false, false
if mode == 'throttle' then
    if locked_until and now_us < locked_until then return answer(0, status or '', holder, '0') end
elseif status and not ended[status] then
    if mode == 'unique' then return answer(0, status, holder, '0') end
    replaces = mode ~= '' and stands(holder, status, origin)
end

if mode == 'debounce' then
    first = replaces and first or now_us
    local due = now_us + period * 1000000
    if most_delay then due = math.min(due, first + most_delay * 1000000) end
    -- A registry's score: whole seconds, as RQ's; never early. A job that has waited for long enough waits no more.
    job.due = due > now_us and text_of(math.ceil(due / 1000000)) or ''
end
if replaces then
    id = holder
    -- In a lane it may have to wait elsewhere, with its new arguments.
    job.keeps_place = status == 'queued' and origin == queue and job.due == '' and count == 0 and not job.at_front
        and not job.limited and not lane_of_holder
else
    local other
    other, exists = in_the_way(id, ARGV[4] == '1')
    if other then return answer(0, other, id, '0') end
end

redis.call('SADD', 'rq:queues', list)   -- the first write, see transitions
if replaces then leave_place(holder, status, origin, before[3]) end
if exists then clear_ended(id, queue) end
redis.call('HSET', job_key(id), unpack(ARGV, first_dependency + count))
job.id = id
local code = place(job)
store_batches()

if mode == 'throttle' then
    write(KEYS[2], period, 'job', id, 'until', text_of(now_us + period * 1000000))
elseif mode ~= '' then
    local wait = job.due ~= '' and math.max(tonumber(job.due) - now, 0) or 0
    write(KEYS[2], kept_for + wait, 'job', id, 'since', text_of(now), 'first', text_of(first or now_us))
    attempt('ZADD', KEYS[4], now + 60, ARGV[10])
end
return answer(code, ({'queued', 'scheduled', 'deferred', 'rate_limited'})[code], id, replaces and '1' or '0')
