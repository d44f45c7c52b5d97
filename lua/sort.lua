-- Put jobs that wait into lanes, from their queue's list or from lanes of rules that hold no more; or back on the list.
-- KEYS: 1 queue list
-- ARGV: 1 queue, 2 version of the rules that the caller knows, 3 how many ids were read off the front of the list,
--       then for each job: id, the lane in which it was ("" the list), its lane ("" back on the list)
-- Returns: how many have moved; -1 when the rules have changed
-- Dynamic keys: see includes/lanes.lua
--- @include time
--- @include transitions
--- @include lanes

if (redis.call('GET', 'rqxx:rules:version') or '') ~= ARGV[2] then return -1 end
local queue, read = ARGV[1], tonumber(ARGV[3])
local numbers_key, front_key = 'rqxx:numbers:' .. queue, 'rqxx:front:' .. queue
local moved, in_lanes = 0, 0

-- Numbers go up with Redis' clock, so that they tell how long a job has waited as well; those of jobs that were put at
-- the front go down from the lowest.
local last, first = unpack(redis.call('HMGET', numbers_key, 'last', 'first'))
last, first = math.max(tonumber(last) or 0, now_us), tonumber(first) or 1000000000000000

local lane_of, from_lanes = {}, {}
for at = 4, #ARGV, 3 do
    local id, old, new = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    if old == '' then lane_of[id] = new else from_lanes[#from_lanes + 1] = {id, old, new} end
end

local function put(id, lane, number)
    local key = 'rqxx:lane:' .. lane .. '@' .. queue
    if attempt('ZADD', key, 'LT', number, id) ~= 1 then return end   -- it stands there already
    in_lanes = in_lanes + 1
    if attempt('ZCARD', key) == 1 then
        attempt('SADD', 'rqxx:lanes:' .. queue, lane)
        make_ready(lane, queue, number)
    end
end

-- Those that were at the front when they were read; others may have taken some, or put some before them.
local ids = read > 0 and redis.call('LPOP', KEYS[1], read) or {}
local unknown = {}
local at_front = #ids > 0 and attempt('EXISTS', front_key) == 1 and attempt('SMISMEMBER', front_key, unpack(ids)) or {}
for i = #ids, 1, -1 do   -- of those at the front the first gets the lowest number
    if at_front[i] == 1 and lane_of[ids[i]] then
        first = first - 1
        put(ids[i], lane_of[ids[i]], first)
        moved = moved + 1
    end
end
for i, id in ipairs(ids) do
    if not lane_of[id] then
        unknown[#unknown + 1] = id
    elseif at_front[i] ~= 1 then
        last = last + 1
        put(id, lane_of[id], last)
        moved = moved + 1
    end
end
for i = #unknown, 1, -1 do attempt('LPUSH', KEYS[1], unknown[i]) end
if #at_front > 0 then attempt('SREM', front_key, unpack(ids)) end

for _, one in ipairs(from_lanes) do
    local id, old, new = unpack(one)
    local number = leave_lane(old, queue, id)
    if number then
        in_lanes = in_lanes - 1
        moved = moved + 1
        if new == '' then attempt('RPUSH', KEYS[1], id) else put(id, new, number) end
    end
end

if attempt('EXISTS', 'rqxx:lanes:' .. queue) == 1 then
    attempt('HSET', numbers_key, 'last', string.format('%d', last), 'first', string.format('%d', first))
else
    attempt('DEL', numbers_key, front_key)
end
count_in_lanes(queue, in_lanes)
attempt('DEL', 'rqxx:sorting:' .. queue)
if moved > 0 then woken[queue] = true end
tell_woken()
return moved
