-- Sign a cron process off, and let the next one lead at once.
-- KEYS: 1 leader of these schedules, 2 RQ's set of cron schedulers, 3 the process's hash
-- ARGV: 1 name of the process
-- Source: rq/cron.py CronScheduler.register_death (RQ 2.10), which leaves the hash to its TTL
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
return 1
