-- Take away a queue of which no job is left.
-- KEYS: 1 RQ's set of queues, 2 queue list, 3.. started, finished, failed, deferred, scheduled, canceled, the queue's lanes
-- ARGV: 1 "1" dry run: nothing is written, 2 "1" forget places of jobs whose hash is gone
-- Returns: {code, jobs in the list, in the registries...}; code 0 there is no such queue, 1 deleted, 2 there are jobs
-- Dynamic keys: rq:job:<id>
-- Source: rq/queue.py Queue.delete (RQ 2.10)
if ARGV[2] == '1' then
    for i = 3, #KEYS - 1 do
        local places = redis.pcall('ZRANGE', KEYS[i], '0', '1999')
        for _, place in ipairs(places.err and {} or places) do
            if redis.call('EXISTS', 'rq:job:' .. string.match(place, '^[^:]*')) == 0 then redis.call('ZREM', KEYS[i], place) end
        end
    end
end
local known = redis.call('SISMEMBER', KEYS[1], KEYS[2]) == 1
local counts, jobs = {0}, 0
local function count(command, key)
    local n = redis.pcall(command, key)
    counts[#counts + 1] = type(n) == 'number' and n or 0
    jobs = jobs + counts[#counts]
end
count('LLEN', KEYS[2])
for i = 3, #KEYS - 1 do count('ZCARD', KEYS[i]) end
count('SCARD', KEYS[#KEYS])
if not known and jobs == 0 then return counts end
counts[1] = jobs > 0 and 2 or 1
if jobs == 0 and ARGV[1] ~= '1' then
    redis.call('SREM', KEYS[1], KEYS[2])
    redis.call('DEL', KEYS[2])
end
return counts
