-- Register a worker, as RQ's register_birth does, and give it a lease.
-- KEYS: 1 worker hash, 2 set of the worker's executions
-- ARGV: 1 name, 2 lease in us, 3 TTL of the worker hash, 4 queues joined by commas, 5 slots, 6.. field, value, ...
--       of the hash
-- Returns: {1} registered; {0, hostname, pid} when a worker of this name lives
-- Dynamic keys: rq:workers:<queue>; rqxx:slots: how many jobs each worker of ours runs at once
-- Source: rq/worker/base.py register_birth (RQ 2.10)
--- @include time
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HEXISTS', KEYS[1], 'death') == 0 then
    local old = redis.call('HMGET', KEYS[1], 'hostname', 'pid')
    return {0, old[1] or '', old[2] or ''}
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'birth', now_iso, 'last_heartbeat', now_iso, 'queues', ARGV[4], 'state', 'idle', unpack(ARGV, 6))
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('SADD', 'rq:workers', KEYS[1])
for queue in string.gmatch(ARGV[4], '[^,]+') do redis.call('SADD', 'rq:workers:' .. queue, KEYS[1]) end
redis.pcall('HSET', 'rqxx:slots', ARGV[1], ARGV[5])
redis.call('ZADD', 'rqxx:leases', now_us + tonumber(ARGV[2]), ARGV[1])
return {1}
