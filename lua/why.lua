-- Why a job does not run just now. Changes nothing.
-- KEYS: 1 job hash
-- ARGV: 1 job id, 2 version of the rules that the caller knows, 3 the job's queue, 4 the lane in which the rules make it
--       wait ("" on the list), 5 how many rules pause the queue, their names, then those of its limits for the whole queue
-- Returns: {} when there is no such job; {-1} when the rules or its queue have changed; else
--       {now in us, status, {{code, field, value, ...}...}, {when the queue's newest jobs ended, as RQ writes it...}}
--       The most telling reason comes first. Times are in us, or text as RQ writes it.
-- Dynamic keys: see includes/transitions.lua, includes/lanes.lua, includes/limits.lua; workers of the queue, locks of
--       schedulers
--- @include time
--- @include transitions
--- @include lanes
--- @include limits
reading = true

local id, queue, lane = ARGV[1], ARGV[3], ARGV[4]
local list = 'rq:queue:' .. queue
local farthest = 10000   -- how far a list is looked through
local shown = 100        -- how many of a kind are named

local reasons = {}
local function say(code, ...) reasons[#reasons + 1] = {code, ...} end

-- What a command answers, or nil where there is nothing, or a key of another type.
local function number_of(reply) return type(reply) == 'number' and reply or nil end
local function text_of_reply(reply) return type(reply) == 'string' and reply or nil end
local function list_of(reply) return type(reply) == 'table' and not reply.err and reply or {} end
local function micros(score)
    local us = (tonumber(score) or 0) * 1000000
    return us > 0 and us < 253402300800000000 and math.floor(us + 0.5) or 0   -- until the year 9999
end

local fields = attempt('HMGET', KEYS[1], 'status', 'origin', 'started_at', 'ended_at', 'worker_name', 'dependency_ids',
    'allow_dependency_failures', 'rate_limit_key')
if fields.err then return {now_us, 'unreadable', {{'unreadable'}}, {}} end
local status, origin, started_at, ended_at, worker_name, dependency_ids, allow, rate_limit = unpack(fields)
if not (status or origin) and redis.call('EXISTS', KEYS[1]) == 0 then return {} end
if (origin or '') ~= queue or (redis.call('GET', 'rqxx:rules:version') or '') ~= ARGV[2] then return {-1} end
status = status or 'created'

-- ---- workers ----

-- Those that listen on the queue and would take a job: how many, of them busy, of them stock ones.
local function count_workers()
    local listening, busy, stock, names = 0, 0, 0, {}
    for _, key in ipairs(list_of(attempt('SRANDMEMBER', 'rq:workers:' .. queue, 1000))) do
        local state, death, ending = unpack(list_of(attempt('HMGET', key, 'state', 'death', 'shutdown_requested_date')))
        local name = string.sub(key, 11)   -- without rq:worker:
        local slots = text_of_reply(attempt('HGET', 'rqxx:slots', name))   -- of a worker of ours
        local lives = state and not death and not ending
        if lives and slots then lives = (tonumber(attempt('ZSCORE', 'rqxx:leases', name) or nil) or 0) >= now_us end
        if lives then
            listening = listening + 1
            names[#names + 1] = name
            if not slots then stock = stock + 1 end
            local full = state == 'busy'
            if slots then full = (number_of(attempt('SCARD', key .. ':executions')) or 0) >= (tonumber(slots) or 1) end
            if full then busy = busy + 1 end
        end
    end
    table.sort(names)
    return listening, busy, stock, names
end

-- ---- limits ----

local rules = {}
local function learn_rule(name)
    if rules[name] == nil then rules[name] = rule_of(text_of_reply(attempt('HGET', 'rqxx:rules', name)) or '') end
    return rules[name]
end

-- Who holds points of a limiter of this kind: job ids.
local function holders_of(limiter)
    local ids, seen = {}, {}
    for _, holder in ipairs(list_of(attempt('ZRANGE', limiter.key, 0, shown - 1))) do
        local holding = string.match(holder, '|([%w_-]+):')
        if holding and not seen[holding] then
            seen[holding] = true
            ids[#ids + 1] = holding
        end
    end
    return ids
end

-- Tells of a limit where it holds the job up. `workers`: names of those that listen, for a limit of each by itself.
local function look_at_limit(name, key, points, workers)
    local rule = learn_rule(name)
    if not rule then return end
    points = tonumber(points) or 1
    if rule.kind == 'pause' then
        say('function_paused', 'rule', name, 'function', text_of_reply(rule['function']) or '')
        return
    end
    local limiter, until_us
    if rule.worker then
        for _, worker in ipairs(workers) do
            limiter = limiter_of(rules, name, key .. '@' .. worker)
            if not limiter or not wait_of(limiter, points) then return end
        end
        if not limiter then return end
        until_us = -1
    else
        limiter = limiter_of(rules, name, key)
        until_us = limiter and wait_of(limiter, points)
        if not until_us then return end
    end
    local told = {'rule', name, 'key', key, 'kind', rule.kind, 'limit', rule.limit, 'points', points,
        'scope', rule.worker and 'worker' or 'cluster'}
    if until_us > 0 then
        told[#told + 1] = 'until'
        told[#told + 1] = until_us
    end
    if (pushed_back or read_pushed_back())[limiter.name] then
        say('pushed_back', unpack(told))
        return
    end
    if until_us < 0 then
        told[#told + 1] = 'used'
        told[#told + 1] = limiter.used
        told[#told + 1] = 'jobs'
        told[#told + 1] = holders_of(limiter)
    end
    say('limited', unpack(told))
end

-- ---- where a queued job stands ----

-- Its place in a lane, and what comes before; says nothing where it does not stand there.
local function place_in_lane(in_lane)
    local key = 'rqxx:lane:' .. in_lane .. '@' .. queue
    local place = number_of(attempt('ZRANK', key, id))
    if not place then return nil end
    local told = {'in', 'lane', 'place', place + 1, 'waiting', number_of(attempt('ZCARD', key)) or 0}
    local ready, ring, fair = ready_of_lane(in_lane, queue)
    ready, ring, fair = ready or '', ring or '', fair or ''
    local lanes_before = attempt('GET', ready) == in_lane and 0 or number_of(attempt('ZRANK', ready, in_lane))
    if lanes_before then
        local keys = number_of(attempt('LLEN', ring)) or 1
        local turn = number_of(attempt('LPOS', ring, fair, 'MAXLEN', farthest)) or 0
        local jobs_before = place
        if keys > 1 then
            jobs_before = place * keys + turn
        else
            local number = attempt('ZSCORE', key, id)
            for _, other in ipairs(list_of(lanes_before > 0 and attempt('ZRANGE', ready, 0, math.min(lanes_before, 1000) - 1))) do
                jobs_before = jobs_before + (number_of(attempt('ZCOUNT', 'rqxx:lane:' .. other .. '@' .. queue, '-inf',
                    '(' .. number)) or 0)
            end
        end
        told[#told + 1] = 'jobs_before'
        told[#told + 1] = jobs_before
        lanes_before = lanes_before + turn
    else
        -- Held up: behind others that wait for the same.
        for rule, held_key in string.gmatch(in_lane, '|([^|=]+)=([^|*]*)%*%d+') do
            local name = held_key ~= '' and rule .. ':' .. held_key or rule
            lanes_before = lanes_before or number_of(attempt('ZRANK', 'rqxx:waiters:' .. name, in_lane .. '@' .. queue))
        end
    end
    if lanes_before then
        told[#told + 1] = 'lanes_before'
        told[#told + 1] = lanes_before
    end
    return told
end

-- The lane of older rules, or of what the job was before its meta changed, in which it stands.
local function find_other_lane()
    for _, other in ipairs(list_of(attempt('SRANDMEMBER', 'rqxx:lanes:' .. queue, farthest))) do
        if other ~= lane and attempt('ZSCORE', 'rqxx:lane:' .. other .. '@' .. queue, id) then return other end
    end
end

-- Where it stands. Returns a reason; further ones that come before it are said.
local function find_place()
    local told = lane ~= '' and place_in_lane(lane)
    if told then return {'position', unpack(told)}, lane end
    local at = number_of(attempt('LPOS', list, id, 'MAXLEN', farthest))
    local length = number_of(attempt('LLEN', list)) or 0
    local sorted = tonumber(attempt('HGET', 'rqxx:sorted', queue) or nil) or 0
    if at then
        local before = at
        if lane ~= '' then
            say('unsorted', 'place', at + 1, 'waiting', length, 'sorted', sorted)
            if attempt('SISMEMBER', 'rqxx:front:' .. queue, id) ~= 1 then before = before + sorted end
        end
        return {'position', 'in', 'queue', 'place', at + 1, 'waiting', length, 'jobs_before', before}
    end
    if number_of(attempt('LPOS', list .. ':intermediate', id, 'MAXLEN', farthest)) then
        return {'being_taken', 'queue', queue}
    end
    local other = find_other_lane()
    if other then
        local of_other_rules = group_of_lane(other) ~= group_of_lane(lane .. '|')
        if of_other_rules then say('unsorted', 'sorted', sorted) end
        return {'position', unpack(place_in_lane(other))}, other
    end
    if length > farthest then return {'position', 'in', 'queue', 'more_than', farthest, 'waiting', length} end
    if (number_of(attempt('SCARD', 'rqxx:lanes:' .. queue)) or 0) > farthest then return {'position', 'in', 'lane'} end
    return {'off_queue', 'queue', queue}
end

local function look_at_queued()
    if attempt('GET', 'rq:suspended') then
        local left = attempt('PTTL', 'rq:suspended')
        if left > 0 then say('suspended', 'until', now_us + left * 1000) else say('suspended') end
    end
    local pauses = tonumber(ARGV[5])
    if pauses > 0 then say('queue_paused', 'queue', queue, 'rules', {unpack(ARGV, 6, 5 + pauses)}) end

    local listening, busy, stock, names = count_workers()
    local before = #reasons
    local place, stands_in = find_place()
    local said = {unpack(reasons, before + 1)}
    for _ = 1, #said do table.remove(reasons) end
    if place[1] == 'off_queue' or place[1] == 'being_taken' then
        say(unpack(place))
        return
    end
    for rule, key, points in string.gmatch(stands_in or lane, '|([^|=]+)=([^|*]*)%*(%d+)') do
        if learn_rule(rule) and rules[rule].kind == 'pause' then look_at_limit(rule, key, points, names) end
    end
    if listening == 0 then
        say('no_worker', 'queue', queue)
    elseif stock == listening and stands_in then
        say('only_stock_workers', 'queue', queue, 'workers', stock)
    end
    for i = 6 + pauses, #ARGV do
        local rule = learn_rule(ARGV[i])
        look_at_limit(ARGV[i], '', rule and rule.points or 1, names)
    end
    for rule, key, points in string.gmatch(stands_in or lane, '|([^|=]+)=([^|*]*)%*(%d+)') do
        if learn_rule(rule) and rules[rule].kind ~= 'pause' then look_at_limit(rule, key, points, names) end
    end
    for _, one in ipairs(said) do say(unpack(one)) end
    if listening > 0 and busy == listening then
        say('workers_busy', 'queue', queue, 'workers', listening, 'running', number_of(attempt('ZCARD', 'rq:wip:' .. queue)) or 0)
    end
    say(unpack(place))
end

-- ---- other states ----

local function look_at_dependencies()
    local parents = list_of(attempt('SMEMBERS', 'rq:job::' .. id .. ':dependencies'))
    local ok, named = pcall(cjson.decode, dependency_ids or '[]')
    if #parents == 0 and ok and type(named) == 'table' then parents = named end
    table.sort(parents, function(a, b) return tostring(a) < tostring(b) end)
    local ways = {dependency_failed = {}, dependency_missing = {}, dependency_unfinished = {}}
    local counts = {}
    for _, parent in ipairs(parents) do
        if type(parent) == 'string' then
            local of = attempt('HGET', job_key(parent), 'status')
            local missing = not of and attempt('EXISTS', job_key(parent)) == 0
            local way
            if missing then
                way = 'dependency_missing'
            elseif type(of) == 'table' or not lets_pass(of or 'created', allow == '1') then
                local ended = of == 'failed' or of == 'stopped' or of == 'canceled'
                way = ended and 'dependency_failed' or 'dependency_unfinished'
            end
            if way then
                counts[way] = (counts[way] or 0) + 1
                if #ways[way] < 2 * shown then
                    table.insert(ways[way], parent)
                    table.insert(ways[way], missing and 'gone' or type(of) == 'string' and of or 'unreadable')
                end
            end
        end
    end
    for _, way in ipairs({'dependency_failed', 'dependency_unfinished', 'dependency_missing'}) do
        if counts[way] then
            say(way, 'count', counts[way], 'dependencies', ways[way], 'allows_failure', allow == '1' and 1 or 0)
        end
    end
    if not counts.dependency_failed and not counts.dependency_unfinished then say('dependencies_met') end
end

local function look_at_scheduled()
    local due = text_of_reply(attempt('ZSCORE', 'rq:scheduled:' .. queue, id))
    if not due then
        say('off_queue', 'queue', queue)
        return
    end
    local due_us = micros(due)
    local scheduler = text_of_reply(attempt('GET', 'rq:scheduler-lock:' .. queue))
    if due_us > now_us then say('scheduled', 'until', due_us) end
    if not scheduler then
        say('no_scheduler', 'queue', queue, 'due', due_us, 'late', math.max(now_us - due_us, 0))
    elseif due_us <= now_us then
        say('scheduler_late', 'queue', queue, 'due', due_us, 'late', now_us - due_us, 'scheduler', scheduler)
    end
end

local function look_at_started()
    if is_held(id, queue) or attempt('ZSCORE', 'rq:wip:' .. queue, id) then
        local lease = tonumber(attempt('ZSCORE', 'rqxx:leases', worker_name or '') or nil)
        if lease and lease < now_us then say('worker_lost', 'worker', worker_name, 'since', lease) end
        say('running', 'since', started_at or '', 'worker', worker_name or '')
    else
        say('not_held', 'since', started_at or '', 'worker', worker_name or '')
    end
end

local function look_at_rate_limit()
    local limit = 'rq:rl:' .. (rate_limit or '')
    local place = number_of(attempt('ZRANK', limit .. ':rate_limited', id))
    if not place then
        say('off_queue', 'queue', queue)
        return
    end
    say('rate_limited', 'key', rate_limit or '', 'place', place + 1,
        'waiting', number_of(attempt('ZCARD', limit .. ':rate_limited')) or 0,
        'used', number_of(attempt('ZCARD', limit .. ':allowed')) or 0,
        'limit', count_of(text_of_reply(attempt('HGET', limit, 'concurrency'))))
end

local ended = {}
if status == 'queued' then
    look_at_queued()
    for _, registry in ipairs({'rq:finished:', 'rq:failed:'}) do
        for _, other in ipairs(list_of(attempt('ZREVRANGE', registry .. queue, 0, 49))) do
            ended[#ended + 1] = text_of_reply(attempt('HGET', job_key(other), 'ended_at'))
        end
    end
elseif status == 'deferred' then
    look_at_dependencies()
elseif status == 'scheduled' then
    look_at_scheduled()
elseif status == 'started' then
    look_at_started()
elseif status == 'rate_limited' then
    look_at_rate_limit()
elseif status == 'created' then
    say('not_enqueued')
elseif status == 'finished' or status == 'failed' or status == 'stopped' or status == 'canceled' then
    say(status, 'since', ended_at or '')
else
    say('unknown_status', 'status', status)
end
return {now_us, status, reasons, ended}
