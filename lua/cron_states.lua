-- How schedules stand, and their newest runs. Reads only.
-- ARGV: 1 how many runs of each, 2.. names
-- Returns: for each {rule, last slot, when its job was enqueued, "1" where it is paused, {job id, when, status...}}
-- Dynamic keys: rqxx:cron:<name>, its history, rq:job:<id>
local answer = {}
local function text(value) return type(value) == 'string' and value or '' end
for i = 2, #ARGV do
    local state = redis.pcall('HMGET', 'rqxx:cron:' .. ARGV[i], 'rule', 'last_slot', 'last_enqueued_at', 'paused')
    local history = redis.pcall('ZREVRANGE', 'rq:cron_job:' .. ARGV[i] .. ':jobs', 0, tonumber(ARGV[1]) - 1, 'WITHSCORES')
    local runs = {}
    for at = 1, #history, 2 do
        runs[#runs + 1] = history[at]
        runs[#runs + 1] = history[at + 1]
        runs[#runs + 1] = text(redis.pcall('HGET', 'rq:job:' .. history[at], 'status'))
    end
    answer[i - 1] = {text(state[1]), text(state[2]), text(state[3]), text(state[4]), runs}
end
return answer
