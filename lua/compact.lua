-- Take ids without a job off a stretch of a queue, in place: nothing is ever anywhere else.
-- KEYS: 1 queue list
-- ARGV: 1 where the stretch begins, 2 how many entries, 3 "1" dry run: nothing is written
-- Returns: {entries looked at, entries removed}
-- Dynamic keys: job hashes
-- Source: rq/queue.py Queue.compact (RQ 2.10)
local first = tonumber(ARGV[1])
local ids = redis.call('LRANGE', KEYS[1], first, first + tonumber(ARGV[2]) - 1)
local removed = 0
for _, id in ipairs(ids) do
    if redis.call('EXISTS', 'rq:job:' .. id) == 0 then
        if ARGV[3] ~= '1' then redis.call('LREM', KEYS[1], 1, id) end
        removed = removed + 1
    end
end
return {#ids, removed}
