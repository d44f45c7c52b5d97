-- Save a job and put it where it belongs, in one step: on its queue, into the scheduled registry, or, while a
-- dependency holds it back, into the deferred one.
-- KEYS: 1 job hash, 2 queue list
-- ARGV: 1 job id, 2 queue, 3 "L" front | "R" back, 4 "1" unique (any job of this id is in the way) | "L" with
--       a rate limit, 5 ttl or "", 6 when it is due (epoch seconds) or "", 7 group or "",
--       8 how many dependencies, then their ids, then field, value, ...
-- Returns: {code, status}; code 0: nothing was written, because of a job of this id in that status; 1 queued,
--       2 scheduled, 3 deferred, 4 rate_limited, 5: nothing was written, because the group is a batch that takes no more
--       jobs (status: why)
-- Dynamic keys: see includes/transitions.lua; of the jobs that it depends on
--- @include time
--- @include transitions
--- @include batches
--- @include placing
local id, queue = ARGV[1], ARGV[2]
local dependencies = arguments(9, tonumber(ARGV[8]))

local refusal = why_closed(ARGV[7])
if refusal then return {5, refusal} end
local status, exists = in_the_way(id, ARGV[4] == '1')
if status then return {0, status} end
redis.call('SADD', 'rq:queues', KEYS[2])   -- the first write, see transitions
if exists then clear_ended(id, queue) end
redis.call('HSET', KEYS[1], unpack(ARGV, 9 + #dependencies))
local code = place({id = id, queue = queue, at_front = ARGV[3] == 'L', limited = ARGV[4] == 'L', ttl = ARGV[5], due = ARGV[6],
    group = ARGV[7], dependencies = dependencies})
store_batches()
return {code, ''}
