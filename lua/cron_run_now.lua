-- Enqueue a job of a schedule beside its slots.
-- KEYS: 1 job hash, 2 queue list, 3 history of the schedule
-- ARGV: 1 job id, 2 ttl or "", 3.. field, value, ...
-- Returns: 1
-- Dynamic keys: none
--- @include time
--- @include changes
--- @include cron_enqueue
enqueue_cron_job(ARGV[1], KEYS[1], KEYS[2], KEYS[3], ARGV[2], 3)
store_changes()
return 1
