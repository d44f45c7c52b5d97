-- Where a schedule stands. One that is new, or whose rule has changed, begins now: nothing before this
-- moment counts as missed.
-- KEYS: 1 state of the schedule
-- ARGV: 1 its rule as text, 2 "1" write that down (only the process that fires may)
-- Returns: {last slot, time of the last enqueue as epoch float or "", id of the last job or ""}
--- @include time
local rule, slot, enqueued, job = unpack(redis.call('HMGET', KEYS[1], 'rule', 'last_slot', 'last_enqueued_at', 'last_job'))
slot = tonumber(slot)
if not slot or rule ~= ARGV[1] then
    slot = math.max(slot or 0, now)
    if ARGV[2] == '1' then redis.call('HSET', KEYS[1], 'rule', ARGV[1], 'last_slot', string.format('%d', slot)) end
end
return {slot, enqueued or '', job or ''}
