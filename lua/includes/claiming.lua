-- Starting the jobs that a claim takes. Needs time.lua, recent.lua, changes.lua, and KEYS and ARGV 1 to 5 as in claim.lua;
-- `first_execution`: which of ARGV is the first execution id.
local ttl = tonumber(ARGV[3])
-- Several claims of one worker may be on their way at once; together they take no more than it has slots for.
local limit = math.min(tonumber(ARGV[2]), tonumber(ARGV[5]) - redis.call('SCARD', KEYS[2]))
-- As text, because Redis turns a number into text on each call.
local wip_until, record_ttl, record_until = tostring(now + ttl), tostring(ttl + 60), tostring(now + ttl + 60)
local claimed, skipped = {}, {}
local members, by_origin = {}, {}
-- Ids that lead nowhere must not make one call long.
local budget = limit + 1000

local function is_zset_or_none(key)
    local kind = redis.call('TYPE', key).ok
    return kind == 'zset' or kind == 'none'
end

local function started_registry(origin)
    if by_origin[origin] == nil then
        by_origin[origin] = is_zset_or_none('rq:wip:' .. origin) and {} or false
    end
    return by_origin[origin]
end

local started_here = {}   -- their places in the started registry are written at the end

-- RQ leaves records of jobs that it cancels or judges abandoned: only a place in the registry counts (W15).
local function is_running(id, origin)
    if started_here[id] then return true end
    local executions = redis.pcall('ZRANGE', 'rq:executions:' .. id, 0, -1)
    for _, execution in ipairs(executions.err and {} or executions) do
        local place = redis.pcall('ZSCORE', 'rq:wip:' .. origin, id .. ':' .. execution)
        if type(place) == 'string' then return true end
    end
    return false
end

-- Why a job in this status must not run, or nil.
local function reason_to_skip(id, status, origin)
    if status == 'canceled' or status == 'finished' or status == 'failed' or status == 'stopped' or status == 'rate_limited' then
        return 'it is ' .. status
    end
    if status == 'started' and is_running(id, origin) then return 'it is running' end
end

-- A hash on its way through Lua costs Redis as much as three of the commands here. It saves the worker a round trip,
-- which counts where few jobs start.
local most_with_hash = 4

-- Starts a job popped from a queue. Returns why it cannot run, or nil and `job id:execution id`.
local function start(id, queue)
    if not string.find(id, '^[%w_-]+$') then return 'not a job id' end
    local key = 'rq:job:' .. id
    local head = redis.pcall('HMGET', key, 'status', 'origin', 'created_at')
    if head.err then return 'its key is not a hash' end
    local status, origin, created_at = head[1], head[2], head[3]
    if not (status or origin or created_at) and redis.call('EXISTS', key) == 0 then return 'no such job' end
    local without_origin = not origin or origin == ''
    if without_origin then origin = queue end
    local why = reason_to_skip(id, status, origin)
    if why then return why end
    local registry = started_registry(origin)
    if not registry then return 'rq:wip:' .. origin .. ' is not a sorted set' end

    local hash = #claimed < most_with_hash and redis.call('HGETALL', key) or nil   -- as it was before
    local execution = ARGV[first_execution + #claimed]
    local member = id .. ':' .. execution
    local record = 'rq:execution:' .. member
    redis.call('HSET', record, 'id', execution, 'created_at', now_float, 'last_heartbeat', now_float,
        'job_id', id, 'worker_name', ARGV[1])
    redis.call('EXPIRE', record, record_ttl)
    local executions = 'rq:executions:' .. id
    if type(redis.pcall('ZADD', executions, record_until, execution)) == 'table' then   -- of another type
        redis.call('DEL', executions)
        redis.call('ZADD', executions, record_until, execution)
    end
    redis.call('EXPIRE', executions, record_ttl)
    redis.call('HSET', key, 'status', 'started', 'started_at', now_iso, 'last_heartbeat', now_iso,
        'worker_name', ARGV[1])
    if without_origin then redis.call('HSET', key, 'origin', origin) end
    -- RQ leaves the sets their lifetime: children of a job that runs for longer would be forgotten (W28).
    if redis.call('PERSIST', key) == 1 then
        redis.call('PERSIST', 'rq:job:' .. id .. ':dependents')
        redis.call('PERSIST', 'rq:job::' .. id .. ':dependencies')
    end
    registry[#registry + 1] = wip_until
    registry[#registry + 1] = member
    members[#members + 1] = member
    started_here[id] = true
    claimed[#claimed + 1] = {id, execution, origin, hash}
    note_recent(id, created_at)
    note_change(id)
    return nil, member
end

-- Writes what the jobs that were started have in common.
local function finish_claim()
    for origin, registry in pairs(by_origin) do
        if registry and #registry > 0 then
            for i = 1, #registry, 1000 do
                redis.call('ZADD', 'rq:wip:' .. origin, unpack(registry, i, math.min(i + 999, #registry)))
            end
        end
    end
    if #members > 0 then
        redis.call('SADD', KEYS[2], unpack(members))
        redis.call('EXPIRE', KEYS[2], record_ttl)
        if redis.call('EXISTS', KEYS[1]) == 1 then
            redis.call('HSET', KEYS[1], 'state', 'busy', 'current_job', ARGV[4] ~= '' and ARGV[4] or claimed[1][1],
                'current_job_working_time', 0)
        end
        store_recent()
        store_changes()
    end
end
