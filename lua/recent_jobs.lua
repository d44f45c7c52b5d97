-- The newest jobs by creation: ids from the ends of lists and registries, never from their whole length. Reads only.
-- ARGV: 1 how many, 2 how many to look at per place, 3 status or "", 4.. queues
-- Returns: {{id, running execution or ""}...}, newest first
-- Dynamic keys: lists, registries and job hashes of the queues
local limit, depth, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local seen, found = {}, {}

local function consider(id, execution)
    if seen[id] then return end
    seen[id] = true
    local job = redis.pcall('HMGET', 'rq:job:' .. id, 'created_at', 'status')
    if job.err or not (job[1] or job[2]) then return end
    if wanted ~= '' and (job[2] or 'created') ~= wanted then return end
    found[#found + 1] = {job[1] or '', id, execution or ''}
end

local function consider_all(command, ...)
    local ids = redis.pcall(command, ...)
    if ids.err then return end
    for _, id in ipairs(ids) do consider(id) end
end

for i = 4, #ARGV do
    local queue = ARGV[i]
    if wanted == '' or wanted == 'started' then
        local members = redis.pcall('ZREVRANGE', 'rq:wip:' .. queue, 0, depth - 1)
        if not members.err then
            for _, member in ipairs(members) do consider(string.match(member, '^([^:]*):?(.*)$')) end
        end
    end
    if wanted == '' or wanted == 'queued' then
        consider_all('LRANGE', 'rq:queue:' .. queue, -depth, -1)
        consider_all('LRANGE', 'rq:queue:' .. queue, 0, math.min(depth, 5) - 1)   -- those put in front
    end
    if wanted == '' or wanted == 'finished' then
        consider_all('ZREVRANGEBYSCORE', 'rq:finished:' .. queue, '(+inf', '-inf', 'LIMIT', 0, depth)
        consider_all('ZRANGEBYSCORE', 'rq:finished:' .. queue, '+inf', '+inf', 'LIMIT', 0, depth)   -- kept for ever
    end
    if wanted == '' or wanted == 'failed' or wanted == 'stopped' then
        consider_all('ZREVRANGE', 'rq:failed:' .. queue, 0, depth - 1)
        consider_all('ZRANGEBYSCORE', 'rq:failed:' .. queue, -1, -1, 'LIMIT', 0, depth)   -- kept for ever
    end
    for _, status in ipairs({'deferred', 'scheduled', 'canceled'}) do
        if wanted == '' or wanted == status then
            consider_all('ZREVRANGE', 'rq:' .. status .. ':' .. queue, 0, depth - 1)
        end
    end
end
table.sort(found, function(a, b)
    if a[1] ~= b[1] then return a[1] > b[1] end
    return a[2] < b[2]
end)
local result = {}
for i = 1, math.min(limit, #found) do result[i] = {found[i][2], found[i][3]} end
return result
