-- Add to what is kept of an execution's output.
-- KEYS: 1 list of the job's executions with output, newest first, 2 stream of this execution
-- ARGV: 1 job id, 2 execution id, 3 seconds to keep it from now on (-1 for ever, 0 not at all), then pairs of
--       "1" (stdout), "2" (stderr) or "x" (so many bytes are missing here) and text
-- Returns: 1, or 0 where the job is gone: nothing is stored then
-- Dynamic keys: the streams of older executions
local most_executions = 10   -- as RQ's results

if redis.call('EXISTS', 'rq:job:' .. ARGV[1]) == 0 then return 0 end
for key, kind in pairs({[KEYS[1]] = 'list', [KEYS[2]] = 'stream'}) do   -- of another type: in the way
    if redis.call('TYPE', key).ok ~= kind then redis.call('DEL', key) end
end
if redis.call('EXISTS', KEYS[2]) == 0 and #ARGV > 3 and ARGV[3] ~= '0' then
    redis.call('LPUSH', KEYS[1], ARGV[2])
    for _, old in ipairs(redis.call('LRANGE', KEYS[1], most_executions, -1)) do
        redis.call('DEL', KEYS[1] .. ':' .. old)
    end
    redis.call('LTRIM', KEYS[1], 0, most_executions - 1)
end
if ARGV[3] == '0' then
    redis.call('DEL', KEYS[2])
    return 1
end
for at = 4, #ARGV, 2 do redis.call('XADD', KEYS[2], '*', ARGV[at], ARGV[at + 1]) end
-- What older executions wrote is reached by way of the list, and goes with it.
local kept = {KEYS[1]}
for _, execution in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do kept[#kept + 1] = KEYS[1] .. ':' .. execution end
for _, key in ipairs(kept) do
    if ARGV[3] == '-1' then redis.call('PERSIST', key) else redis.call('EXPIRE', key, ARGV[3]) end
end
return 1
