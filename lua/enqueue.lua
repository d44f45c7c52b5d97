-- Save a job and push its id, in one step.
-- KEYS: 1 job hash, 2 queue list
-- ARGV: 1 job id, 2 "L" front | "R" back, 3 "1" unique (refuse an existing id), 4 ttl or "", 5.. field, value, ...
-- Returns: 1 enqueued, 0 duplicate (nothing written)
-- Source: rq/scripts.py UNIQUE_ENQUEUE_SCRIPT, rq/queue.py Queue._enqueue_job (RQ 2.10)
if redis.call('EXISTS', KEYS[1]) == 1 then
    if ARGV[3] == '1' then return 0 end
    -- RQ merges the old job's fields into the new one; a job starts clean here.
    redis.call('DEL', KEYS[1])
end
redis.call('SADD', 'rq:queues', KEYS[2])
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
if ARGV[4] ~= '' then redis.call('EXPIRE', KEYS[1], ARGV[4]) end
redis.call(ARGV[2] == 'L' and 'LPUSH' or 'RPUSH', KEYS[2], ARGV[1])
return 1
