-- The lines of a list of jobs, as their hashes are now. Reads only, one key for each job.
-- KEYS: job hashes        ARGV: 1 most characters of a description
-- Returns: {now in us, for each {status, origin, description, created_at, enqueued_at, started_at, ended_at, worker_name},
--       or 0 where there is no such job}
--- @include time
local answers = {}
for i, key in ipairs(KEYS) do
    local job = redis.pcall('HMGET', key, 'status', 'origin', 'description', 'created_at', 'enqueued_at', 'started_at',
        'ended_at', 'worker_name')
    if job.err or not (job[1] or job[2] or job[4]) then
        answers[i] = 0
    else
        for at = 1, 8 do job[at] = string.sub(job[at] or '', 1, tonumber(ARGV[1])) end
        answers[i] = job
    end
end
return {now_us, answers}
