-- Sign a worker off, as RQ's register_death does, and put back what it claimed without knowing.
-- KEYS: 1 worker hash, 2 set of the worker's executions
-- ARGV: 1 name, 2 queues joined by commas
-- Returns: how many jobs were put back
-- Dynamic keys: rq:workers:<queue>; see includes/transitions.lua
-- Source: rq/worker/base.py register_death (RQ 2.10)
--- @include time
--- @include transitions
--- @include lanes
-- Without a lease no claim of ours that is still on its way can succeed.
redis.call('ZREM', 'rqxx:leases', ARGV[1])
local orphans = 0
for _, member in ipairs(redis.call('SMEMBERS', KEYS[2])) do
    if return_orphan(member) then orphans = orphans + 1 end
end
redis.call('DEL', KEYS[2])
release_all_of(ARGV[1])
attempt('HDEL', 'rqxx:slots', ARGV[1])
redis.call('SREM', 'rq:workers', KEYS[1])
for queue in string.gmatch(ARGV[2], '[^,]+') do redis.call('SREM', 'rq:workers:' .. queue, KEYS[1]) end
redis.call('HSET', KEYS[1], 'death', now_iso)
redis.call('EXPIRE', KEYS[1], 60)
tell_woken()
store_changes()
return orphans
