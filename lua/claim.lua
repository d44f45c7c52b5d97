-- Take up to N jobs from queues in order, and start them: execution, lease, status, worker, in one step.
-- For queues without rules; see claim_ruled.lua.
-- KEYS: 1 worker hash, 2 set of the worker's executions, 3.. queue lists, first has precedence
-- ARGV: 1 worker name, 2 N, 3 seconds until RQ's maintenance may judge the execution,
--       4 the worker's oldest running job or "", 5 most executions that may stand in the worker's set,
--       6 version of the rules that the worker knows, 7 "1": one job of each queue in turn, 8.. N execution ids
-- Returns: {state, now in us, {{job id, execution id, queue, hash as a list}...}, {{id, queue, why}...}}
--       Only the first jobs come with their hash, see below; the worker reads those of the others.
--       state: 0 ok, 1 suspended, 2 the worker's lease is gone (register again), 3 no slot is free, 4 the rules have changed
-- Dynamic keys: see includes/transitions.lua
--- @include time
--- @include recent
--- @include changes

local suspended, rules_version, wanted = unpack(redis.call('MGET', 'rq:suspended', 'rqxx:rules:version', 'rqxx:changes:wanted'))
changes_wanted = wanted and true
if suspended then return {1, now_us, {}, {}} end
if (rules_version or '') ~= ARGV[6] then return {4, now_us, {}, {}} end
if not redis.call('ZSCORE', 'rqxx:leases', ARGV[1]) then return {2, now_us, {}, {}} end

local first_execution = 8
--- @include claiming
if limit <= 0 then return {3, now_us, {}, {}} end

-- Starts up to `most` jobs of a queue; whether there may be more.
local function take(key, most)
    local queue = string.sub(key, 10)   -- without rq:queue:
    -- Looked at before anything is taken: a job popped into a broken registry would be lost.
    local sound = redis.call('EXISTS', key) == 1 and started_registry(queue) ~= false
    if not sound then
        if by_origin[queue] == false then
            skipped[#skipped + 1] = {'', queue, 'rq:wip:' .. queue .. ' is not a sorted set'}
        end
        return false
    end
    local upto = math.min(#claimed + most, limit)
    while #claimed < upto and budget > 0 do
        local ids = redis.pcall('LPOP', key, math.min(upto - #claimed, budget))
        if ids and ids.err then
            skipped[#skipped + 1] = {'', queue, 'the queue is not a list'}
            return false
        end
        if not ids then return false end
        budget = budget - #ids
        for _, id in ipairs(ids) do
            local why = start(id, queue)
            if why then skipped[#skipped + 1] = {id, queue, why} end
        end
    end
    return true
end

local in_turn = ARGV[7] == '1'
local queues = {unpack(KEYS, 3)}
repeat
    local with_more = {}
    for _, key in ipairs(queues) do
        if #claimed < limit and take(key, in_turn and 1 or limit) then with_more[#with_more + 1] = key end
    end
    queues = with_more
until not in_turn or #queues == 0 or #claimed >= limit or budget <= 0

finish_claim()
return {0, now_us, claimed, skipped}
