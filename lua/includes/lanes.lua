-- Where jobs wait whose queue has rules that depend on the job: limits by function or key, turns between keys.
-- Needs time.lua, and `attempt`.
--
-- Such jobs leave their queue's list (lua/sort.lua) for lanes: those of one lane are under the same rules, with the same
-- keys, and wait in their order. A lane's name is `<epoch>|<fair key>|<rule>=<key>*<points>|...`, with what stands for
-- itself there percent-encoded; the epoch says which rules made it.
--   rqxx:lanes:<queue>                      set of the lanes that have jobs
--   rqxx:lane:<lane>@<queue>                sorted set: job ids by their number in the queue
--   rqxx:ready:<epoch>|<fair key>@<queue>   the lane of that key that nothing holds up, a string; where there are several, a
--                                           sorted set, by their first job
--   rqxx:ring:<epoch>@<queue>               list of the keys that have such lanes; whose turn it is first
--   rqxx:waiters:<limiter>                  sorted set of `<lane>@<queue>`: lanes that a limiter holds up, by first job;
--                                           of a limiter of whole queues, `@<queue>`
--   rqxx:due:<queue>                        sorted set: limiters that lanes wait for, by when they let jobs pass (us)
--   rqxx:waiting                            set of limiters that something waits for, or did
--   rqxx:sorted                             hash: how many jobs of a queue stand in lanes
--   rqxx:holds:<worker>                     hash: what its executions hold of concurrency limiters
-- A lane with jobs is ready or waits for one limiter, never both.
-- A limiter here is a rule's name, or `<name>:<key>`.

local woken = {}   -- queues whose workers are to look

-- Of a lane: its epoch and fair key, as they stand in the names of keys.
local function group_of_lane(lane) return string.match(lane, '^([^|]*)|([^|]*)') end

-- Names of the keys that say which lanes are ready, and of which it is the turn.
local function ready_of_lane(lane, queue)
    local epoch, fair = group_of_lane(lane)
    if not epoch then return nil end
    return 'rqxx:ready:' .. epoch .. '|' .. fair .. '@' .. queue, 'rqxx:ring:' .. epoch .. '@' .. queue, fair
end

local function make_ready(lane, queue, number)
    local ready, ring, fair = ready_of_lane(lane, queue)
    if not ready then return end
    if attempt('SETNX', ready, lane) == 1 then
        attempt('RPUSH', ring, fair)
        return
    end
    local only = attempt('GET', ready)
    if only == lane then return end
    if type(only) == 'string' then
        attempt('DEL', ready)
        local first = attempt('ZRANGE', 'rqxx:lane:' .. only .. '@' .. queue, '0', '0', 'WITHSCORES')
        attempt('ZADD', ready, first[2] or number, only)
    end
    attempt('ZADD', ready, number, lane)
end

-- The lane is not ready any more. Whether its key has others that are; else the caller takes the key off the ring.
local function leave_ready(lane, queue)
    local ready = ready_of_lane(lane, queue)
    if not ready then return false end
    local only = attempt('GET', ready)
    if only == lane then
        attempt('DEL', ready)
        return false
    end
    if type(only) == 'table' then attempt('ZREM', ready, lane) end
    return attempt('EXISTS', ready) == 1
end

-- Takes a job out of a lane. Returns its number, or nil when it does not stand there.
local function leave_lane(lane, queue, id)
    local key = 'rqxx:lane:' .. lane .. '@' .. queue
    local number = attempt('ZSCORE', key, id)
    if not number or attempt('ZREM', key, id) ~= 1 then return nil end
    if attempt('EXISTS', key) == 0 then
        attempt('SREM', 'rqxx:lanes:' .. queue, lane)
        local _, ring, fair = ready_of_lane(lane, queue)
        if not leave_ready(lane, queue) and ring then attempt('LREM', ring, 1, fair) end
    end
    return number
end

-- The lane in which a job stands, or nil. A look at each lane, about a microsecond; not found where there are very many.
local function lane_with(queue, id)
    local lanes = 'rqxx:lanes:' .. queue
    if (tonumber(attempt('SCARD', lanes)) or 0) > 20000 then return nil end
    for _, lane in ipairs(attempt('SMEMBERS', lanes)) do
        if attempt('ZSCORE', 'rqxx:lane:' .. lane .. '@' .. queue, id) then return lane end
    end
end

-- Counts how many jobs of a queue have come into lanes, or left them.
local function count_in_lanes(queue, change)
    if change ~= 0 and attempt('HINCRBY', 'rqxx:sorted', queue, change) == 0 then attempt('HDEL', 'rqxx:sorted', queue) end
end

-- Lets up to `most` of those pass that wait for a limiter.
local function wake(limiter, most)
    local waiters = attempt('ZPOPMIN', 'rqxx:waiters:' .. limiter, most)
    for i = 1, #waiters, 2 do
        local lane, queue = string.match(waiters[i], '^([^@]*)@(.*)$')
        if lane then
            if lane ~= '' then make_ready(lane, queue, waiters[i + 1]) end
            woken[queue] = true
        end
    end
    return #waiters / 2
end

-- Gives back what an execution holds of concurrency limiters.
local function release_holds(worker, member, holds)
    local holder = worker .. '|' .. member
    for limiter, points in string.gmatch(holds, '([^\n]+) (%d+)\n') do
        local key = 'rqxx:limit:concurrency:' .. limiter
        attempt('ZREM', key, holder)
        for i = 2, tonumber(points) do attempt('ZREM', key, holder .. '#' .. i) end
        wake(limiter, tonumber(points))
    end
end

-- The same for executions of a worker (`<job id>:<execution id>`), most of which hold nothing.
local function release_all_holds(worker, members)
    local key = 'rqxx:holds:' .. worker
    if #members == 0 or attempt('EXISTS', key) ~= 1 then return end
    local holds = attempt('HMGET', key, unpack(members))
    for i, member in ipairs(members) do
        if holds[i] then
            release_holds(worker, member, holds[i])
            attempt('HDEL', key, member)
        end
    end
end

-- The same for all executions of a worker that is gone.
local function release_all_of(worker)
    local holds = attempt('HGETALL', 'rqxx:holds:' .. worker)
    for i = 1, #holds, 2 do release_holds(worker, holds[i], holds[i + 1]) end
    attempt('DEL', 'rqxx:holds:' .. worker)
end

-- Called once, at the end of a script.
local function tell_woken()
    for queue in pairs(woken) do attempt('PUBLISH', 'rqxx:wake', queue) end
end
