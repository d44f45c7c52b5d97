-- Sign a scheduler off: give up the locks that are its own.
-- KEYS: 1 leases of schedulers, 2 the scheduler's metadata hash, 3.. locks
-- ARGV: 1 scheduler name
-- Returns: how many locks it gave up
-- Source: rq/scheduler.py RQScheduler.stop (RQ 2.10), which deletes whoever's lock it is (W13)
local released = 0
for i = 3, #KEYS do
    if redis.pcall('GET', KEYS[i]) == ARGV[1] then released = released + redis.call('DEL', KEYS[i]) end
end
redis.call('DEL', KEYS[2])
redis.pcall('ZREM', KEYS[1], ARGV[1])
return released
