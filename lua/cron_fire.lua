-- Enqueue the job of one slot of a schedule, unless that slot or a later one has been dealt with.
-- KEYS: 1 state of the schedule, 2 job hash, 3 queue list, 4 history of the schedule
-- ARGV: 1 job id, 2 slot, 3 "1" not while the last job is unfinished, 4 ttl or "", 5.. field, value, ...
-- Returns: {code, text}: 0 dealt with before (text: id of the last job), 1 enqueued (text: epoch float),
--          2 left out because the last job, named in text, is unfinished, 3 left out because the schedule is paused
-- Dynamic keys: rq:job:<last job>
--- @include time
--- @include changes
--- @include cron_enqueue
local slot = tonumber(ARGV[2])
local last_slot, last_job, paused = unpack(redis.call('HMGET', KEYS[1], 'last_slot', 'last_job', 'paused'))
if (tonumber(last_slot) or -1) >= slot then return {0, last_job or ''} end
-- The state may have been lost or set back, and the job be there.
if redis.call('EXISTS', KEYS[2]) == 1 then
    redis.call('HSET', KEYS[1], 'last_slot', ARGV[2])
    return {0, last_job or ''}
end
if paused == '1' then
    redis.call('HSET', KEYS[1], 'last_slot', ARGV[2], 'last_skipped_slot', ARGV[2])
    redis.call('HINCRBY', KEYS[1], 'skipped', 1)
    return {3, last_job or ''}
end
if ARGV[3] == '1' and last_job then
    local status = redis.call('HGET', 'rq:job:' .. last_job, 'status')
    if status == 'queued' or status == 'started' or status == 'deferred' or status == 'scheduled' then
        redis.call('HSET', KEYS[1], 'last_slot', ARGV[2], 'last_skipped_slot', ARGV[2])
        redis.call('HINCRBY', KEYS[1], 'skipped', 1)
        return {2, last_job}
    end
end
enqueue_cron_job(ARGV[1], KEYS[2], KEYS[3], KEYS[4], ARGV[4], 5)
redis.call('HSET', KEYS[1], 'last_slot', ARGV[2], 'last_job', ARGV[1], 'last_enqueued_at', now_float)
redis.call('HINCRBY', KEYS[1], 'fired', 1)
store_changes()
return {1, now_float}
