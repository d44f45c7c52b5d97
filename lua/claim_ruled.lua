-- Take up to N jobs from queues that have rules: weights, ageing, pauses, limits, turns between keys. As claim.lua else.
-- KEYS: 1 worker hash, 2 set of the worker's executions
-- ARGV: 1 worker name, 2 N, 3 seconds until RQ's maintenance may judge the execution,
--       4 the worker's oldest running job or "", 5 most executions that may stand in the worker's set,
--       6 version of the rules that the worker knows, 7 the plan, see below, 8.. N execution ids
-- Returns: {state, now in us, {{job id, execution id, queue, hash as a list}...}, {{id, queue, why}...},
--       1 when the last job came from a queue that had risen, for each queue {when to look again, may its list be watched,
--       is its list to be sorted, its share in the next turn}}; state as in claim.lua; when: us, 0 when a job comes,
--       -1 when something is given back, -2 at once, -3 when the queue is resumed
-- The plan, JSON: strategy ("strict", "weighted", "turns"), age (us, 0: no ageing), after_risen (from the last claim),
--       queues, in order of precedence: {name, weight, share (from the last claim), most (jobs that may be taken), paused,
--       epoch (where jobs wait in lanes), limits: names of rules that hold for the whole queue}, all but the name where needed,
--       rules by name: {kind, limit, per (us), burst, points, worker (each worker by itself)}
-- Dynamic keys: see includes/transitions.lua, includes/lanes.lua, includes/limits.lua
-- Source of the weighted turns: nginx, smooth weighted round robin.
--- @include time
--- @include recent
--- @include changes

local suspended, rules_version, wanted = unpack(redis.call('MGET', 'rq:suspended', 'rqxx:rules:version', 'rqxx:changes:wanted'))
changes_wanted = wanted and true
if suspended then return {1, now_us, {}, {}, 0, {}} end
if (rules_version or '') ~= ARGV[6] then return {4, now_us, {}, {}, 0, {}} end
if not redis.call('ZSCORE', 'rqxx:leases', ARGV[1]) then return {2, now_us, {}, {}, 0, {}} end

local attempt = redis.pcall
local first_execution = 8
--- @include claiming
if limit <= 0 then return {3, now_us, {}, {}, 0, {}} end
--- @include lanes
--- @include limits

local no_uses = {}
local plan = cjson.decode(ARGV[7])
local rules, queues = plan.rules, plan.queues
for _, queue in ipairs(queues) do
    queue.epoch, queue.limits, queue.most = queue.epoch or '', queue.limits or no_uses, queue.most or -1
    queue.at_name = '@' .. queue.name
end
-- Lanes that turn out to be held up, and empty ones, must not make one call long either.
local looks = limit + 300

local function list_of(queue) return 'rq:queue:' .. queue.name end
local function ring_of(queue) return 'rqxx:ring:' .. queue.epoch .. queue.at_name end
local function lane_of(queue, lane) return 'rqxx:lane:' .. lane .. queue.at_name end
local function ready_of(queue, fair) return 'rqxx:ready:' .. queue.epoch .. '|' .. fair .. queue.at_name end

-- ---- limits ----

-- Not read yet where it comes for the first time.
local function limiter_for(rule, key)
    local definition = rules[rule]
    if definition and definition.worker then key = key .. '@' .. ARGV[1] end
    return unread_limiter_of(rules, rule, key)
end

local holds_of_worker = 'rqxx:holds:' .. ARGV[1]

-- What starts with `member` uses up: `uses` are limiters, each followed by its points. Returns what it holds of those that
-- it gives back, for release_holds, or nil.
local function use_all(uses, member)
    local holds = nil
    for i = 1, #uses, 2 do
        local limiter, points = uses[i], uses[i + 1]
        use(limiter, points, member)
        if limiter.kind.is_held then holds = (holds or '') .. limiter.name .. ' ' .. points .. '\n' end
    end
    return holds
end

-- Waits for a limiter: who is woken when something is given back, or when its time comes.
local function wait_for(limiter, waiter, number, queue, until_us)
    redis.call('ZADD', 'rqxx:waiters:' .. limiter.name, number, waiter)
    redis.call('SADD', 'rqxx:waiting', limiter.name)
    if until_us > 0 then redis.call('ZADD', 'rqxx:due:' .. queue.name, 'LT', until_us, limiter.name) end
end

-- The limits that hold for the whole queue. Returns what a job uses of them, or nil and when to look again.
local function queue_limits(queue)
    if not queue.limits[1] then return no_uses end
    local uses = {}
    for _, rule in ipairs(queue.limits) do
        local limiter = limiter_for(rule, '')
        if #unread > 0 then read_limiters() end
        if limiter then
            local points = limiter.rule.points
            local until_us = wait_of(limiter, points)
            if until_us then
                if until_us < 0 and not limiter.rule.worker then wait_for(limiter, '@' .. queue.name, now, queue, 0) end
                return nil, until_us
            end
            local at = #uses
            uses[at + 1], uses[at + 2] = limiter, points
        end
    end
    return uses
end

-- ---- lanes ----

local aside = {}      -- lanes that only this worker may not take from; they are ready for others
local lane_uses = {}  -- what a job of a lane uses: limiters, each followed by its points

local function uses_of(lane)
    local uses = lane_uses[lane]
    if uses then return uses end
    uses = {}
    local at = 1
    for rule, key, points in string.gmatch(lane, '|([^|=]+)=([^|*]*)%*(%d+)') do
        local limiter = limiter_for(rule, key)
        if limiter then
            uses[at], uses[at + 1] = limiter, tonumber(points)
            at = at + 2
        end
    end
    lane_uses[lane] = uses
    return uses
end

-- Keys are taken off the ring several at a time, and go back to it at the end of the script; what is needed to judge them
-- is read for all at once.
local function take_off_ring(queue, turns)
    -- As many as the queue's share of the turns will ask for.
    local share = (limit - #claimed) * (queue.portion or 1)
    local keys = redis.call('LPOP', ring_of(queue), tostring(math.max(1, math.min(math.ceil(share), 100))))
    if not keys then   -- All have had their turn.
        keys, turns.served = turns.served, {}
    end
    turns.taken, turns.at, turns.lanes = keys, 1, {}
    if not keys[1] then return end
    local names = {}
    local begin, rest = 'rqxx:ready:' .. queue.epoch .. '|', queue.at_name
    for i, fair in ipairs(keys) do names[i] = begin .. fair .. rest end
    turns.lanes = redis.call('MGET', unpack(names))   -- false where there are several
    for _, lane in ipairs(turns.lanes) do
        if lane then uses_of(lane) end
    end
    read_limiters()
end

-- Whose turn it is, and the key's lane where it is the only one.
local function next_fair(queue)
    local turns = queue.turns
    local at = turns.at + 1
    turns.at = at
    if at > #turns.taken then
        take_off_ring(queue, turns)
        at = 1
    end
    return turns.taken[at], turns.lanes[at]
end

local function store_ring(queue)
    local turns = queue.turns
    if not turns then return end
    local back = {}
    for i = #turns.taken, math.max(turns.at, 0) + 1, -1 do back[#back + 1] = turns.taken[i] end
    if #back > 0 then redis.call('LPUSH', ring_of(queue), unpack(back)) end
    if #turns.served > 0 then redis.call('RPUSH', ring_of(queue), unpack(turns.served)) end
end

-- Lets those pass whose time has come.
local function wake_due(queue)
    local due = 'rqxx:due:' .. queue.name
    local names = redis.call('ZRANGEBYSCORE', due, '-inf', now_us, 'LIMIT', '0', '100')
    for _, name in ipairs(names) do
        local rule, key = string.match(name, '^([^:]*):?(.*)$')
        local limiter = limiter_of(rules, rule, key)
        local free = limiter and free_points(limiter, 1000) or 1000
        if free > 0 then wake(name, free) end
        local until_us = nil
        if redis.call('EXISTS', 'rqxx:waiters:' .. name) == 1 then
            -- Those who passed use it up in a moment, and then it is known when the next one's time comes.
            until_us = limiter and wait_of(limiter, free + 1) or now_us + 1000
        else
            redis.call('SREM', 'rqxx:waiting', name)
        end
        if until_us and until_us > 0 then
            redis.call('ZADD', due, until_us, name)
        else
            redis.call('ZREM', due, name)
        end
    end
end

-- The lane is held up by `limiter`; a place that it was let pass for elsewhere goes to the next one there.
local function park(queue, fair, lane, uses, limiter, until_us)
    local served = queue.turns.served
    if leave_ready(lane, queue.name) then served[#served + 1] = fair end
    local number = redis.call('ZRANGE', lane_of(queue, lane), '0', '0', 'WITHSCORES')[2]
    if not number then   -- Nobody waits there.
        redis.call('SREM', 'rqxx:lanes:' .. queue.name, lane)
        return
    end
    if limiter.rule.worker then
        aside[#aside + 1] = {queue, lane, number}
    else
        wait_for(limiter, lane .. '@' .. queue.name, number, queue, until_us)
        for i = 1, #uses, 2 do
            if uses[i] ~= limiter and not wait_of(uses[i], uses[i + 1]) then wake(uses[i].name, 1) end
        end
    end
end

-- The first job of the lane leaves it, and the turn of its key is over: it stays on the ring while it has lanes that are
-- ready. `alone`: no other lane of the key is, so that its number is of no interest.
local function pop_lane(queue, fair, lane, alone)
    local key = lane_of(queue, lane)
    local first = redis.call('ZPOPMIN', key)
    local has_more
    if alone then
        has_more = redis.call('EXISTS', key) == 1
    else
        has_more = redis.call('ZRANGE', key, '0', '0', 'WITHSCORES')[2]
        if has_more then redis.call('ZADD', ready_of(queue, fair), has_more, lane) end
    end
    if not has_more then
        redis.call('SREM', 'rqxx:lanes:' .. queue.name, lane)
        has_more = leave_ready(lane, queue.name)
    end
    if has_more then
        local served = queue.turns.served
        served[#served + 1] = fair
    end
    return first[1]
end

-- Takes the next job out of the lanes whose turn it is. Returns its id and what it uses, or nil.
local function take_from_lanes(queue)
    local pushed = pushed_back or read_pushed_back()
    while looks > 0 do
        looks = looks - 1
        local fair, lane = next_fair(queue)
        if not fair then return nil end
        local alone = lane
        if not lane then lane = redis.pcall('ZRANGE', ready_of(queue, fair), '0', '0')[1] end
        if lane then
            local uses = uses_of(lane)
            if unread[1] then read_limiters() end
            local blocked, until_us
            for i = 1, #uses, 2 do
                local limiter = uses[i]
                until_us = pushed[limiter.name] or limiter.kind.wait(limiter, uses[i + 1])
                if until_us then
                    blocked = limiter
                    break
                end
            end
            if blocked then
                park(queue, fair, lane, uses, blocked, until_us)
            else
                local id = pop_lane(queue, fair, lane, alone)
                if id then
                    queue.left = queue.left + 1
                    return id, uses
                end
            end
        end
    end
    return nil, nil, true
end

-- ---- queues ----

local sorted_lists = {}
for _, queue in ipairs(queues) do
    if queue.epoch ~= '' then sorted_lists[#sorted_lists + 1] = list_of(queue) end
end
local any_unsorted = #sorted_lists > 0 and redis.call('EXISTS', unpack(sorted_lists)) > 0

-- Whether jobs can be taken from a queue. Looked at when it is its turn for the first time.
local function is_sound(queue)
    if started_registry(queue.name) == false then
        skipped[#skipped + 1] = {'', queue.name, 'rq:wip:' .. queue.name .. ' is not a sorted set'}
        return false
    end
    if queue.epoch ~= '' then
        queue.turns = {at = 0, taken = {}, lanes = {}, served = {}}
        queue.left = 0   -- its lanes, of jobs
        wake_due(queue)
        -- What was put at the front is sorted first.
        if any_unsorted and redis.call('EXISTS', 'rqxx:front:' .. queue.name) == 1 then
            queue.unfinished = redis.call('EXISTS', list_of(queue)) == 1
            if not queue.unfinished then redis.call('DEL', 'rqxx:front:' .. queue.name) end
        end
    end
    return not queue.unfinished
end

-- Takes one job of a queue and starts it. Returns whether it did; else the queue has nothing for now.
local function take(queue)
    if queue.sound == nil then queue.sound = is_sound(queue) end
    if not queue.sound then return false end
    while budget > 0 do
        budget = budget - 1
        local uses, until_us = queue_limits(queue)
        if not uses then
            queue.blocked = until_us
            return false
        end
        local id, unfinished
        local uses_of_lane = no_uses
        if queue.epoch ~= '' then
            id, uses_of_lane, unfinished = take_from_lanes(queue)
            if unfinished then queue.unfinished = true end
        else
            id = redis.pcall('LPOP', list_of(queue))
            if id and id.err then
                skipped[#skipped + 1] = {'', queue.name, 'the queue is not a list'}
                return false
            end
        end
        if not id then return false end
        local why, member = start(id, queue.name)
        if why then
            skipped[#skipped + 1] = {id, queue.name, why}
            for i = 1, #uses_of_lane, 2 do wake(uses_of_lane[i].name, uses_of_lane[i + 1]) end
        else
            local holds, more = uses[1] and use_all(uses, member), uses_of_lane[1] and use_all(uses_of_lane, member)
            if holds or more then redis.call('HSET', holds_of_worker, member, (holds or '') .. (more or '')) end
            if queue.most > 0 then queue.most = queue.most - 1 end
            return true
        end
    end
    queue.unfinished = true
    return false
end

-- When the first job of a queue was put there, as RQ writes it; nil without one.
local function head_time(queue)
    if queue.head == nil then
        local id
        if queue.epoch ~= '' then
            local turns = queue.turns
            local fair = turns and turns.taken[turns.at + 1] or redis.call('LINDEX', ring_of(queue), '0') or turns and turns.served[1]
            local ready = fair and ready_of(queue, fair)
            local lane = fair and (redis.call('MGET', ready)[1] or redis.pcall('ZRANGE', ready, '0', '0')[1])
            id = lane and redis.call('ZRANGE', lane_of(queue, lane), '0', '0')[1]
        else
            id = redis.pcall('LINDEX', list_of(queue), 0)
        end
        local times = type(id) == 'string' and redis.pcall('HMGET', 'rq:job:' .. id, 'enqueued_at', 'created_at')
        queue.head = times and (times[1] or times[2]) or false
    end
    return queue.head
end

-- By how many classes a queue has risen because its first job has waited; `plan.age` for each.
local aged = {}
local function classes_risen(queue)
    local head = head_time(queue)
    if not head then return 0 end
    local risen = 0
    while risen < #queues do
        aged[risen + 1] = aged[risen + 1] or iso(now_us - (risen + 1) * plan.age)
        if head > aged[risen + 1] then break end
        risen = risen + 1
    end
    return risen
end

local open = {}   -- queues that may have something, in order of precedence
for i, queue in ipairs(queues) do
    queue.place, queue.turn_weight = i, queue.weight
    if not queue.paused and queue.most ~= 0 then open[#open + 1] = queue end
end

-- Who has risen goes first, but not twice in a row: a backlog that is old itself would turn the order round.
local function strict()
    if plan.age == 0 then return 1 end
    local class, natural, risen, risen_time
    for i, queue in ipairs(open) do
        local own = math.max(queue.place - classes_risen(queue), 1)
        if not class or own < class then class, natural, risen = own, nil, nil end
        if own == class then
            if own == queue.place then
                natural = i
            elseif not risen or head_time(queue) < risen_time then
                risen, risen_time = i, head_time(queue)
            end
        end
    end
    if natural and (not risen or plan.after_risen) then
        plan.after_risen = false
        return natural
    end
    plan.after_risen = true
    return risen
end

local function risen_weight(queue)
    local weight = queue.weight
    for i = math.max(queue.place - classes_risen(queue), 1), queue.place - 1 do weight = math.max(weight, queues[i].weight) end
    return weight
end

local function weighted()
    if plan.age > 0 then
        for _, queue in ipairs(open) do queue.turn_weight = risen_weight(queue) end
    end
    local total, most, best = 0, nil, nil
    for i = 1, #open do
        local queue = open[i]
        local weight = queue.turn_weight
        local share = queue.share + weight
        queue.share = share
        total = total + weight
        if not best or share > most then most, best = share, i end
    end
    local chosen = open[best]
    chosen.share = most - total
    chosen.portion = chosen.turn_weight / total
    return best, total
end

local function undo_weighted(total, chosen)
    chosen.share = chosen.share + total
    for _, queue in ipairs(open) do queue.share = queue.share - queue.turn_weight end
    chosen.share = 0   -- who had nothing does not save up
end

local turn = 0
local function in_turn()
    if plan.age > 0 then
        local oldest
        for i, queue in ipairs(open) do
            if classes_risen(queue) > 0 and (not oldest or head_time(queue) < head_time(open[oldest])) then oldest = i end
        end
        if oldest then return oldest end
    end
    turn = turn % #open + 1
    open[turn].portion = 1 / #open
    return turn
end

local choose = plan.strategy == 'weighted' and weighted or plan.strategy == 'turns' and in_turn or strict
while #open > 0 and #claimed < limit and budget > 0 do
    local place, total = choose()
    local queue = open[place]
    local took = take(queue)
    queue.head = nil
    if not took and total then undo_weighted(total, queue) end
    if not took or queue.most == 0 then
        table.remove(open, place)
        turn = turn - 1
    end
end

for _, queue in ipairs(queues) do store_ring(queue) end
for _, entry in ipairs(aside) do make_ready(entry[2], entry[1].name, entry[3]) end
store_limiters()
finish_claim()
local told = {}
for i, queue in ipairs(queues) do
    local again, watch, unsorted = 0, 1, 0
    count_in_lanes(queue.name, -(queue.left or 0))
    if queue.paused then
        again = -3
    elseif queue.blocked then
        again = queue.blocked
    elseif queue.unfinished then
        again = -2
    elseif queue.epoch ~= '' and #claimed < limit then
        again = tonumber(redis.call('ZRANGE', 'rqxx:due:' .. queue.name, 0, 0, 'WITHSCORES')[2]) or 0
        if again == 0 and redis.call('HEXISTS', 'rqxx:sorted', queue.name) == 1 then again = -1 end
    end
    if queue.epoch ~= '' then
        local length = any_unsorted and redis.pcall('LLEN', list_of(queue))
        unsorted = type(length) == 'number' and length > 0 and 1 or 0
    elseif queue.paused or queue.blocked or queue.most == 0 then
        watch = 0
    end
    told[i] = {again, watch, unsorted, queue.share or 0}
    woken[queue.name] = nil   -- those are served here
end
tell_woken()
return {0, now_us, claimed, skipped, plan.after_risen and 1 or 0, told}
