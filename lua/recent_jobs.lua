-- The newest jobs by creation. Reads only, and never looks at more than a fixed number of jobs.
--
-- None of RQ's places is in the order of creation, so candidates come from many: the index of jobs that were started,
-- the ends of lists and registries, and what lies in a registry below now + TTL, for each TTL in use: what ended last.
-- Each place gives a few first; then those whose jobs were the newest give more.
-- ARGV: 1 how many, 2 how many jobs to look at in all, 3 status or "", 4 the only queue or "", 5.. queues
-- Returns: {{id, running execution or ""}...}, newest first
-- Dynamic keys: lists, registries, job hashes and executions of the queues
--- @include time
--- @include ttls

local limit, budget, wanted, only = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local seen, found, newest_needed = {}, {}, ''

local function newer(a, b)
    if a[1] ~= b[1] then return a[1] > b[1] end
    return a[2] < b[2]
end

-- Keeps what may be in the answer.
local function prune()
    table.sort(found, newer)
    for i = #found, limit + 1, -1 do found[i] = nil end
    if #found == limit then newest_needed = found[limit][1] end
end

-- Looks at a job; returns when it was created.
local function consider(id, of_any_queue)
    budget = budget - 1
    local job = redis.pcall('HMGET', 'rq:job:' .. id, 'created_at', 'status', 'origin')
    if job.err or not (job[1] or job[2]) then return '' end
    local created = job[1] and string.find(job[1], '^%d%d%d%d%-%d%d%-%d%dT') and job[1] or ''
    if created >= newest_needed and (wanted == '' or (job[2] or 'created') == wanted)
        and (not of_any_queue or only == '' or job[3] == only) then
        found[#found + 1] = {created, id, job[2]}
        if #found >= 2 * limit + 20 then prune() end
    end
    return created
end

local places = {}

-- `range(from, count)` gives ids, the newest first as far as the place knows; `id_in` takes them out of its members.
local function add(quota, range, id_in, of_any_queue)
    if #places < 6000 then
        places[#places + 1] = {quota = quota, range = range, id_in = id_in, of_any_queue = of_any_queue,
            at = 0, given = 0, newest = ''}
    end
end

-- Takes up to `count` jobs that were not seen before.
local function take(place, count)
    count = math.min(count, place.quota - place.given, budget)
    place.newest = ''
    while count > 0 do
        local members = place.range(place.at, count)
        if members.err or #members < count or place.at > 2000 then place.done = true end
        if members.err then return end
        place.at = place.at + #members
        for _, member in ipairs(members) do
            local id = place.id_in and string.match(member, place.id_in) or member
            if not seen[id] then
                seen[id] = true
                local created = consider(id, place.of_any_queue)
                if created > place.newest then place.newest = created end
                place.given = place.given + 1
                count = count - 1
            end
        end
        if place.done then return end
    end
    place.done = place.given >= place.quota
end

local function last_of(list)
    return function(from, count) return redis.pcall('LRANGE', list, -from - count, -from - 1) end
end
local function first_of(list)
    return function(from, count) return redis.pcall('LRANGE', list, from, from + count - 1) end
end
local function highest_of(registry)
    return function(from, count) return redis.pcall('ZREVRANGE', registry, from, from + count - 1) end
end
local function lowest_of(registry)
    return function(from, count) return redis.pcall('ZRANGE', registry, from, from + count - 1) end
end
local function below(registry, score)
    return function(from, count) return redis.pcall('ZREVRANGEBYSCORE', registry, score, '-inf', 'LIMIT', from, count) end
end
local function at(registry, score)
    return function(from, count) return redis.pcall('ZRANGEBYSCORE', registry, score, score, 'LIMIT', from, count) end
end

local function wants(status) return wanted == '' or wanted == status end
local function each_queue(action)
    for i = 5, #ARGV do action(ARGV[i]) end
end

local depth = math.max(limit, 10)
add(math.max(5 * limit, 100), highest_of('rqxx:recent'), '|(.*)$', true)
if wants('queued') then
    each_queue(function(queue) add(depth, last_of('rq:queue:' .. queue)) end)
    each_queue(function(queue) add(5, first_of('rq:queue:' .. queue)) end)   -- those put in front
end
if wants('started') then
    each_queue(function(queue) add(depth, highest_of('rq:wip:' .. queue), '^[^:]*') end)
end
for outcome, kept_score in pairs({finished = '+inf', failed = '-1'}) do
    if wants(outcome) or outcome == 'failed' and wanted == 'stopped' then
        each_queue(function(queue)
            local registry = 'rq:' .. outcome .. ':' .. queue
            for ttl in pairs(known_ttls(outcome, remembered_ttls(queue))) do add(depth, below(registry, now + ttl)) end
            add(depth, below(registry, '(+inf'))
            add(depth, at(registry, kept_score))
        end)
    end
end
for _, status in ipairs({'deferred', 'canceled', 'scheduled'}) do
    if wants(status) then
        each_queue(function(queue) add(depth, highest_of('rq:' .. status .. ':' .. queue)) end)
    end
end
if wants('rate_limited') then
    for _, key in ipairs(redis.pcall('SRANDMEMBER', 'rq:rl-keys', 100)) do
        add(depth, highest_of('rq:rl:' .. key .. ':rate_limited'), nil, true)
    end
end
if wants('scheduled') then
    each_queue(function(queue) add(depth, lowest_of('rq:scheduled:' .. queue)) end)   -- those due next
end

local function share(count, least) return math.min(math.max(math.floor(budget / (2 * count)), least), 25) end

local open = {}
local first_share = share(#places, 1)
for _, place in ipairs(places) do
    if budget <= 0 then break end
    take(place, first_share)
    if not place.done then open[#open + 1] = place end
end
while budget > 0 and #open > 0 do
    table.sort(open, function(a, b) return a.newest > b.newest end)
    local count = share(#open, 5)
    for i = 1, math.ceil(#open / 8) do take(open[i], count) end
    local rest = {}
    for _, place in ipairs(open) do
        if not place.done then rest[#rest + 1] = place end
    end
    open = rest
end

prune()
local result = {}
for i = 1, #found do
    local _, id, status = unpack(found[i])
    local execution = status == 'started' and redis.pcall('ZREVRANGE', 'rq:executions:' .. id, 0, 0)[1]
    result[i] = {id, execution or ''}
end
return result
