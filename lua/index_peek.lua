-- Jobs that stock RQ may have changed just now: the newest of each place of some queues. Reads only.
-- ARGV: 1 how many of each place, 2.. queues
-- Returns: {place, id, ...}; a place is one letter and the number of the queue
-- Dynamic keys: lists, registries of the queues
--- @include time
--- @include ttls
local most = tonumber(ARGV[1])
local found = {}

local function add(place, ids, id_in)
    if ids.err then return end
    for _, member in ipairs(ids) do
        local id = id_in and string.match(member, id_in) or member
        found[#found + 1] = place
        found[#found + 1] = id
    end
end

for i = 2, #ARGV do
    local queue, at = ARGV[i], tostring(i)
    add('q' .. at, redis.pcall('LRANGE', 'rq:queue:' .. queue, -most, -1))
    add('f' .. at, redis.pcall('LRANGE', 'rq:queue:' .. queue, 0, 3))
    add('s' .. at, redis.pcall('ZREVRANGE', 'rq:wip:' .. queue, 0, most - 1), '^[^:]*')
    for _, status in ipairs({'deferred', 'scheduled', 'canceled'}) do
        add(string.sub(status, 1, 1) .. at, redis.pcall('ZREVRANGE', 'rq:' .. status .. ':' .. queue, 0, most - 1))
    end
    for _, outcome in ipairs({'finished', 'failed'}) do
        local registry = 'rq:' .. outcome .. ':' .. queue
        for ttl in pairs(known_ttls(outcome, remembered_ttls(queue))) do
            add(outcome .. at, redis.pcall('ZREVRANGEBYSCORE', registry, now + ttl, '-inf', 'LIMIT', 0, most))
        end
        add(outcome .. at, redis.pcall('ZREVRANGEBYSCORE', registry, '(+inf', '-inf', 'LIMIT', 0, most))
    end
end
return found
