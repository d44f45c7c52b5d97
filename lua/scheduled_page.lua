-- A page of the jobs that were enqueued for later, by time, then by id. Reads only.
-- ARGV: 1 how many, 2 "" or the time of the last one seen, 3 its id, 4 its queue, 5.. queues
-- Returns: {id, time, queue, ...}; of each queue as many as asked for, so that the caller can merge them
-- Dynamic keys: rq:scheduled:<queue>
local most, last_time, last_id, last_queue = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local answer = {}
for i = 5, #ARGV do
    local queue = ARGV[i]
    local key = 'rq:scheduled:' .. queue
    local first = 0
    if last_time ~= '' then
        first = redis.pcall('ZCOUNT', key, '-inf', '(' .. last_time)
        local same = redis.pcall('ZCOUNT', key, last_time, last_time)
        if type(first) ~= 'number' then first, same = 0, 0 end
        -- Members of one score are in the order of their bytes.
        local low, high = first, first + same
        while low < high do
            local middle = math.floor((low + high) / 2)
            local id = redis.pcall('ZRANGE', key, middle, middle)[1]
            if id and (id < last_id or (id == last_id and queue <= last_queue)) then low = middle + 1 else high = middle end
        end
        first = low
    end
    local page = redis.pcall('ZRANGE', key, first, first + most - 1, 'WITHSCORES')
    if not page.err then
        for j = 1, #page, 2 do
            answer[#answer + 1] = page[j]
            answer[#answer + 1] = page[j + 1]
            answer[#answer + 1] = queue
        end
    end
end
return answer
