-- A page of the jobs that were enqueued for later, by time, then by id. Reads only.
-- ARGV: 1 how many, 2 "" or the time of the last one seen, 3 its id, 4 its queue, 5.. queues
-- Returns: {id, time, queue, ...} in order, no more than asked for
-- Dynamic keys: rq:scheduled:<queue>
local most, last_time, last_id, last_queue = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]

-- In the order of bytes, as Redis has members of one score. Lua's own goes by the locale.
local function less(a, b)
    if a == b then return false end
    for i = 1, math.min(#a, #b) do
        local one, other = a:byte(i), b:byte(i)
        if one ~= other then return one < other end
    end
    return #a < #b
end

local function sooner(a, b)
    if a.at ~= b.at then return a.at < b.at end
    if a.id ~= b.id then return less(a.id, b.id) end
    return less(a.queue, b.queue)
end

-- Of a queue: where it has got to. False at its end.
local function go_on(place)
    place.row = place.row + 2
    if place.row > #place.rows then
        local page = redis.pcall('ZRANGE', place.key, place.rank, place.rank + place.step - 1, 'WITHSCORES')
        if page.err or #page == 0 then return false end
        place.rows, place.row = page, 1
        place.rank = place.rank + place.step
        place.step = math.min(place.step * 4, 64)
    end
    place.id, place.time = place.rows[place.row], place.rows[place.row + 1]
    place.at = tonumber(place.time)
    return true
end

-- The rank of the first one that has not been seen.
local function first_of(key, queue)
    if last_time == '' then return 0 end
    local first = redis.pcall('ZCOUNT', key, '-inf', '(' .. last_time)
    local same = redis.pcall('ZCOUNT', key, last_time, last_time)
    if type(first) ~= 'number' then return 0 end
    local low, high = first, first + same
    while low < high do
        local middle = math.floor((low + high) / 2)
        local id = redis.pcall('ZRANGE', key, middle, middle)[1]
        if id and (less(id, last_id) or (id == last_id and not less(last_queue, queue))) then low = middle + 1 else high = middle end
    end
    return low
end

local places = {}
for i = 5, #ARGV do
    local key = 'rq:scheduled:' .. ARGV[i]
    local place = {key = key, queue = ARGV[i], rank = first_of(key, ARGV[i]), step = 1, rows = {}, row = 1}
    if go_on(place) then places[#places + 1] = place end
end
table.sort(places, sooner)
-- No more queues than jobs can be on the page.
for i = #places, most + 1, -1 do places[i] = nil end

local answer = {}
while #answer < 3 * most and #places > 0 do
    local place = table.remove(places, 1)
    answer[#answer + 1] = place.id
    answer[#answer + 1] = place.time
    answer[#answer + 1] = place.queue
    if go_on(place) then
        local low, high = 1, #places + 1
        while low < high do
            local middle = math.floor((low + high) / 2)
            if sooner(place, places[middle]) then high = middle else low = middle + 1 end
        end
        table.insert(places, low, place)
    end
end
return answer
