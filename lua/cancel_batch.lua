-- Cancel jobs of a batch that have not ended, a bounded part at a time; the first call closes it for further jobs.
--
-- What was begun goes on where somebody calls again: lua/maintain_batches.lua tells of what nobody drives any more.
-- KEYS: 1 the batch
-- ARGV: 1 its id, 2 most jobs to cancel, 3 "1" begin, "0" go on
-- Returns: {code, canceled by this call, left}; code 0 no such batch, 1 there may be more to do, 2 it is done, 3 it was
--       complete
-- Dynamic keys: see includes/transitions.lua, includes/removal.lua and includes/batches.lua
--- @include time
--- @include transitions
--- @include removal
--- @include batches
local id, most = ARGV[1], tonumber(ARGV[2])
if not batch_of(id) then return {0, 0, 0} end
local state, wants = unpack(redis.call('HMGET', KEYS[1], 'state', 'wants'))
if ARGV[3] == '1' and state == 'complete' then return {3, 0, 0} end
if ARGV[3] ~= '1' and wants ~= 'cancel' then return {2, 0, 0} end
redis.call('HSET', KEYS[1], 'wants', 'cancel', 'driven_until', us_text(now_us + 5000000))
if attempt('HSETNX', KEYS[1], 'canceled_at', now_iso) == 1 then ask_of_children(id, 'waiting', 'cancel') end
if state == 'open' then attempt('HSET', KEYS[1], 'state', 'running', 'sealed_at', now_iso) end

-- Jobs of the batch that stand close together on the queue of this one: taking each off by itself would mean to pass over
-- the queue for each.
local function neighbours(job)
    local status, origin, group = unpack(attempt('HMGET', job_key(job), 'status', 'origin', 'group_id'))
    local list = 'rq:queue:' .. (origin or '')
    local place = group == id and status == 'queued' and attempt('LPOS', list, job)
    if type(place) ~= 'number' then return {job} end
    local from = math.max(place - math.floor(most / 2), 0)
    local near = attempt('LRANGE', list, from, from + most - 1)
    local pending = attempt('SMISMEMBER', KEYS[1] .. ':pending', unpack(near))
    local jobs = {}
    for i, other in ipairs(near) do
        if pending[i] == 1 then jobs[#jobs + 1] = other end
    end
    return jobs
end

local canceled = 0
local ids = attempt('SRANDMEMBER', KEYS[1] .. ':pending', 1)
if not ids.err and ids[1] then ids = neighbours(ids[1]) end
if #ids == 1 then   -- Those that wait elsewhere (see includes/lanes.lua), or run.
    for _, job in ipairs(attempt('SRANDMEMBER', KEYS[1] .. ':pending', most)) do
        local status, origin = unpack(attempt('HMGET', job_key(job), 'status', 'origin'))
        local on_list = status == 'queued' and attempt('HEXISTS', 'rqxx:sorted', origin or '') ~= 1
        if job ~= ids[1] and not on_list then ids[#ids + 1] = job end
    end
end
for _, job in ipairs(ids) do
    local fields = attempt('HMGET', job_key(job), 'status', 'origin', 'group_id', 'rate_limit_key')
    local status = fields[1]
    if fields.err or fields[3] ~= id then
        note_end(id, job, 'deleted')
    elseif has_ended[status] then
        note_end(id, job, status)   -- by a stock worker
    else
        cancel_job(job, status or 'created', fields[2] or '', id, fields[4])
        canceled = canceled + 1
    end
end
leave_queues()
store_batches()
local left = attempt('SCARD', KEYS[1] .. ':pending')
if left == 0 then
    attempt('HDEL', KEYS[1], 'driven_until')
    attempt('HSET', KEYS[1], 'wants', 'nothing')
    conclude(id)
    store_changes()
end
return {left == 0 and 2 or 1, canceled, left}
