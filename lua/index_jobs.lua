-- What an index of jobs keeps of some of them. Reads only; the answer is bounded however large the jobs are.
-- ARGV: 1 most bytes of a field that is looked at, 2 most bytes of the answer, 3.. job ids
-- Returns: for each, as far as the answer's size allows (at least one): 0 no such job, or {status, origin, created_at,
--       started_at, ended_at, worker_name, data, meta, TTL in ms or -1, error as stored or ""}; what is too large is ""
-- Dynamic keys: job hashes and results
local most, room = tonumber(ARGV[1]), tonumber(ARGV[2])
local answers = {}

local function small(key, field)
    local size = redis.call('HSTRLEN', key, field)
    if size == 0 or size > most then return '' end
    return redis.call('HGET', key, field)
end

local function short(text)
    return text and string.sub(text, 1, 600) or ''
end

local function error_of(id)
    local results = redis.pcall('XREVRANGE', 'rq:results:' .. id, '+', '-', 'COUNT', 1)
    if results.err or not results[1] then return '' end
    local fields = results[1][2]
    for i = 1, #fields, 2 do
        if fields[i] == 'exc_string' then return #fields[i + 1] <= 4 * most and fields[i + 1] or '' end
    end
    return ''
end

for i = 3, #ARGV do
    local id = ARGV[i]
    local key = 'rq:job:' .. id
    local job = redis.pcall('HMGET', key, 'status', 'origin', 'created_at', 'started_at', 'ended_at', 'worker_name')
    if job.err or not (job[1] or job[2] or job[3]) then
        answers[#answers + 1] = 0
    else
        local failed = job[1] == 'failed' or job[1] == 'stopped'
        local answer = {short(job[1]), short(job[2]), short(job[3]), short(job[4]), short(job[5]), short(job[6]),
            small(key, 'data'), small(key, 'meta'), redis.call('PTTL', key), failed and error_of(id) or ''}
        if failed and answer[10] == '' then answer[10] = small(key, 'exc_info') end
        answers[#answers + 1] = answer
        room = room - #answer[7] - #answer[8] - #answer[10] - 300
        if room <= 0 then break end
    end
end
return answers
