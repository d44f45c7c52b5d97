-- Take ids without a job off a stretch of a queue, in place: nothing is ever anywhere else.
-- KEYS: 1 queue list
-- ARGV: 1 where the stretch begins, 2 how many entries, 3 "1" dry run: nothing is written
-- Returns: {entries looked at, entries removed}
-- Dynamic keys: job hashes
-- Source: rq/queue.py Queue.compact (RQ 2.10)
local first = tonumber(ARGV[1])
local ids = redis.call('LRANGE', KEYS[1], first, first + tonumber(ARGV[2]) - 1)
local removed, mark = 0, '\0'
for i, id in ipairs(ids) do
    if redis.call('EXISTS', 'rq:job:' .. id) == 0 then
        if ARGV[3] ~= '1' then redis.call('LSET', KEYS[1], first + i - 1, mark) end
        removed = removed + 1
    end
end
if removed > 0 and ARGV[3] ~= '1' then redis.call('LREM', KEYS[1], removed, mark) end
return {#ids, removed}
