-- Keep a cron process known, and say whether it is the one that fires.
-- KEYS: 1 leader of these schedules, 2 RQ's set of cron schedulers, 3 the process's hash
-- ARGV: 1 name of the process, 2 lease in ms, 3 TTL of the hash, 4.. field, value, ... to write into it
-- Returns: {1 leader | 0 another one leads, now in us, 1 the hash was there | 0 not}
-- Source: rq/cron.py CronScheduler.register_birth, heartbeat (RQ 2.10)
--- @include time
local leader = redis.call('GET', KEYS[1])
local leads = not leader or leader == ARGV[1]
if leads then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
local known = redis.call('EXISTS', KEYS[3])
redis.call('ZADD', KEYS[2], now_float, ARGV[1])
if ARGV[4] then redis.call('HSET', KEYS[3], unpack(ARGV, 4)) end
redis.call('EXPIRE', KEYS[3], ARGV[3])
return {leads and 1 or 0, now_us, known}
