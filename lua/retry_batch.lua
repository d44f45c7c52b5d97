-- Put the jobs of a batch that failed or were stopped back on their queues, a bounded part at a time.
--
-- Those that fail again meanwhile are left alone. What was begun goes on where somebody calls again, see
-- lua/maintain_batches.lua.
-- KEYS: 1 the batch
-- ARGV: 1 its id, 2 most jobs to look at, 3 "1" begin, "0" go on
-- Returns: {code, requeued by this call, looked at}; code 0 no such batch, 1 there may be more to do, 2 it is done,
--       3 the batch is being canceled
-- Dynamic keys: see includes/transitions.lua and includes/batches.lua
--- @include time
--- @include transitions
--- @include batches
--- @include requeueing
local id, most = ARGV[1], ARGV[2]
if not batch_of(id) then return {0, 0, 0} end
local wants = redis.call('HGET', KEYS[1], 'wants')
if wants == 'cancel' then return {3, 0, 0} end
if ARGV[3] == '1' then
    redis.call('HSET', KEYS[1], 'wants', 'retry', 'retry_before', us_text(now_us), 'retry_cursor', '0')
elseif wants ~= 'retry' then
    return {2, 0, 0}
end
redis.call('HSET', KEYS[1], 'driven_until', us_text(now_us + 5000000))
local before, cursor = unpack(attempt('HMGET', KEYS[1], 'retry_before', 'retry_cursor'))
if cursor == '0' then ask_of_children(id, 'failure', 'retry') end
local reply = attempt('HSCAN', KEYS[1] .. ':unsuccessful', cursor or '0', 'COUNT', most)
local entries = reply.err and {} or reply[2]
local requeued = 0
for i = 1, #entries, 2 do
    local job, outcome, at = entries[i], string.match(entries[i + 1], '^(%a+) (%d+)$')
    if (outcome == 'failed' or outcome == 'stopped') and tonumber(at) < tonumber(before) then
        local fields = attempt('HMGET', job_key(job), 'status', 'origin', 'ttl', 'group_id', 'rate_limit_key',
            'rate_limit_concurrency')
        if not fields.err and fields[4] == id and fields[2] and (fields[1] == 'failed' or fields[1] == 'stopped') then
            requeue_job(job, fields[2], fields[1], fields[3], id, false, fields[5], fields[6])
            requeued = requeued + 1
        end
    end
end
local done = reply.err or reply[1] == '0'
if done then
    attempt('HDEL', KEYS[1], 'driven_until', 'retry_before', 'retry_cursor')
    attempt('HSET', KEYS[1], 'wants', 'nothing')
else
    attempt('HSET', KEYS[1], 'retry_cursor', reply[1])
end
store_batches()
return {done and 2 or 1, requeued, #entries / 2}
