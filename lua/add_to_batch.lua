-- Save jobs, put them where they belong, and make them part of a batch.
--
-- Calls of one loader are numbered: a repetition after a lost reply adds nothing twice, and none is skipped.
-- KEYS: 1 the batch, 2 number of the loader's last call
-- ARGV: 1 batch, 2 number of this call, from 1, 3 how many jobs, then for each:
--       id, queue, "L" front | "R" back, ttl or "", when it is due (epoch seconds) or "",
--       "1" its id was given: a job of this id, in whatever state, is in the way,
--       how many dependencies, how many fields, the dependencies, field, value, ...
-- Returns: {code, {for each job: as lua/enqueue.lua, 0 where one of this id was in the way}}
--       code 0 no such batch, 1 added, 2 an earlier call has added these, 3 an earlier call is missing, 4 the batch is sealed,
--       5 it is canceled. Nothing was written unless it is 1.
-- Dynamic keys: see includes/transitions.lua and includes/batches.lua
--- @include time
--- @include transitions
--- @include batches
--- @include placing
local batch, number, jobs = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local last = count_of(redis.call('GET', KEYS[2]) or 0)
if number <= last then return {2, {}} end
if number > last + 1 then return {3, {}} end
if not batch_of(batch) then return {0, {}} end
local refusal = why_closed(batch)
if refusal then return {refusal == 'canceled' and 5 or 4, {}} end
redis.call('SET', KEYS[2], number, 'EX', 3600)

local codes, added = {}, {}
local front, back = {}, {}   -- queue -> ids
local at = 4
for i = 1, jobs do
    local id, queue, side, ttl, due = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
    local given, dependencies, fields = ARGV[at + 5] == '1', tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7])
    local first_field = at + 8 + dependencies
    if given and attempt('EXISTS', job_key(id)) == 1 then
        codes[i] = 0
    else
        attempt('HSET', job_key(id), unpack(ARGV, first_field, first_field + 2 * fields - 1))
        if dependencies > 0 or due ~= '' then
            -- What stands before it in the same call is on its queue by then.
            codes[i] = place({id = id, queue = queue, at_front = side == 'L', ttl = '', due = due, group = '',
                dependencies = arguments(at + 8, dependencies)})
            attempt('SADD', 'rq:queues', 'rq:queue:' .. queue)
        else
            codes[i] = 1
            local places = side == 'L' and front or back
            places[queue] = places[queue] or {}
            table.insert(places[queue], id)
        end
        added[#added + 1] = id
        note_change(id)
        if ttl ~= '' then expire_job(id, ttl_of(ttl), dependencies > 0) end
    end
    at = first_field + 2 * fields
end
for queue, ids in pairs(back) do
    attempt('SADD', 'rq:queues', 'rq:queue:' .. queue)
    attempt('RPUSH', 'rq:queue:' .. queue, unpack(ids))
end
for queue, ids in pairs(front) do
    attempt('SADD', 'rq:queues', 'rq:queue:' .. queue)
    for _, id in ipairs(ids) do push(queue, id, true) end
end
if #added > 0 then
    attempt('SADD', 'rq:group:' .. batch, unpack(added))
    attempt('SADD', 'rq:groups', batch)
    join_batch(batch, added)
end
store_changes()
return {1, codes}
