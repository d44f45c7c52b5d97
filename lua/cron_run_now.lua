-- Enqueue a job of a schedule beside its slots.
-- KEYS: 1 job hash, 2 queue list, 3 history of the schedule
-- ARGV: 1 job id, 2 ttl or "", 3.. field, value, ...
-- Dynamic keys: none
-- Source: lua/cron_fire.lua
--- @include time
redis.call('LLEN', KEYS[2])   -- Of another type: stops here, before anything has changed.
redis.call('ZCARD', KEYS[3])
redis.call('SADD', 'rq:queues', KEYS[2])
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('HSET', KEYS[1], 'created_at', now_iso, 'enqueued_at', now_iso)
if ARGV[2] ~= '' then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], now_float, ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1001)
redis.call('EXPIRE', KEYS[3], 31536000)
return 1
