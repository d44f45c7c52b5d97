-- Count jobs that stock RQ workers have ended since the last pass, for the performance figures.
--
-- A job that ended in second t with a TTL of T has score t + T in its registry. For each T in use, one
-- short range holds the jobs of the last seconds; their own `ended_at` confirms it.
-- KEYS: 1 the sampler's state
-- ARGV: 1 token of this sampler, 2.. queues
-- Returns: how many were counted; -1 when another sampler is at work
-- Dynamic keys: registries, job hashes, result streams
--- @include time
--- @include metrics
--- @include recent
--- @include ttls
--- @include changes

local owner, valid_until, seen = unpack(redis.call('HMGET', KEYS[1], 'owner', 'until', 'seen'))
if owner and owner ~= ARGV[1] and tonumber(valid_until) > now then return -1 end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', now + 5)
redis.call('EXPIRE', KEYS[1], 86400)
if not seen then
    -- What ended before there was a sampler is not counted.
    redis.call('HSET', KEYS[1], 'seen', now - 1)
    return 0
end
-- After an absence, ten seconds per pass and not more than an hour back.
seen = math.max(tonumber(seen), now - 3600)
local upto = math.min(now - 1, seen + 10)
if upto <= seen then return 0 end

-- Source of the arithmetic: days_from_civil, as in includes/time.lua.
local function parse_us(text)
    if not text then return nil end
    local y, mo, d, h, mi, s, f = string.match(text, '^(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)%.?(%d*)Z$')
    if not y then return nil end
    y, mo, d = tonumber(y), tonumber(mo), tonumber(d)
    if mo <= 2 then y = y - 1 end
    local era = math.floor(y / 400)
    local yoe = y - era * 400
    local doy = math.floor((153 * (mo + (mo > 2 and -3 or 9)) + 2) / 5) + d - 1
    local days = era * 146097 + yoe * 365 + math.floor(yoe / 4) - math.floor(yoe / 100) + doy - 719468
    return ((days * 24 + tonumber(h)) * 60 + tonumber(mi)) * 60000000 + tonumber(s) * 1000000
        + tonumber(string.sub(f .. '000000', 1, 6))
end

local counted, looked_at, totals = 0, {}, {}

local function look_at(id, queue, outcome)
    if looked_at[id] then return end
    looked_at[id] = true
    local job = redis.pcall('HMGET', 'rq:job:' .. id, 'started_at', 'ended_at', 'enqueued_at', 'created_at')
    if job.err then return end
    local ended = parse_us(job[2])
    if not ended or ended <= (seen - 5) * 1000000 or ended > (upto + 2) * 1000000 then return end
    local latest = redis.pcall('XREVRANGE', 'rq:results:' .. id, '+', '-', 'COUNT', 1)
    if not latest.err and latest[1] then
        local fields = latest[1][2]
        for i = 1, #fields, 2 do
            -- Executions of ours are UUIDs of version 7: counted when they were settled.
            if fields[i] == 'execution_id' and string.sub(fields[i + 1], 13, 13) == '7' then return end
        end
    end
    local started, enqueued = parse_us(job[1]), parse_us(job[3])
    measure(outcome, started and ended - started,
        started and enqueued and math.max(started - enqueued, 0) or -1)
    totals[outcome .. '|' .. queue] = (totals[outcome .. '|' .. queue] or 0) + 1
    counted = counted + 1
    note_recent(id, job[4])
    note_change(id)
end

-- The TTLs in use: the usual, those remembered, and what some jobs of lists and registries carry.
local function ttls_of(queue, outcome, field, registry, remembered)
    local ttls = known_ttls(outcome, remembered)
    local function learn(id)
        local ttl = redis.pcall('HGET', 'rq:job:' .. id, field)
        ttl = type(ttl) == 'string' and tonumber(ttl)
        if not ttl or ttl <= 0 or ttl > 100000000000 or ttl ~= math.floor(ttl) then return end
        ttls[ttl] = true
        if now - (remembered[outcome .. '|' .. string.format('%.0f', ttl)] or 0) > 3600 then note_ttl(outcome, queue, ttl) end
    end
    local function learn_all(ids)
        if not ids.err then for _, id in ipairs(ids) do learn(id) end end
    end
    learn_all(redis.pcall('LRANGE', 'rq:queue:' .. queue, 0, 4))
    learn_all(redis.pcall('LRANGE', 'rq:queue:' .. queue, -5, -1))
    learn_all(redis.pcall('ZREVRANGE', registry, 0, 4))
    learn_all(redis.pcall('ZRANDMEMBER', registry, 5))
    return ttls
end

local flat, state = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #flat, 2 do state[flat[i]] = flat[i + 1] end

-- A job that is kept for ever has no time in its score: what counts is how many more there are than at the pass
-- before, without those that our workers put there. When they ended, and how long they took, is not known.
local function count_kept(queue, outcome, registry)
    local score = outcome == 'finished' and '+inf' or '-1'
    local there = redis.pcall('ZCOUNT', registry, score, score)
    if type(there) ~= 'number' then return end
    local name = outcome .. '|' .. queue
    local own = tonumber(state['own|' .. name]) or 0
    local there_before = tonumber(state['kept|' .. name]) or 0
    local own_before = tonumber(state['own_before|' .. name]) or 0
    if there == there_before and own == own_before then return end
    local more = there - there_before - (own - own_before)
    redis.call('HSET', KEYS[1], 'kept|' .. name, there, 'own_before|' .. name, own)
    if not state.kept or more <= 0 then return end
    metrics[outcome] = metrics[outcome] + more
    totals[name] = (totals[name] or 0) + more
    counted = counted + more
end

for i = 2, #ARGV do
    local queue = ARGV[i]
    local remembered = remembered_ttls(queue)
    for outcome, field in pairs({finished = 'result_ttl', failed = 'failure_ttl'}) do
        local registry = 'rq:' .. outcome .. ':' .. queue
        for ttl in pairs(ttls_of(queue, outcome, field, registry, remembered)) do
            local ids = redis.pcall('ZRANGEBYSCORE', registry, '(' .. (seen + ttl), upto + ttl, 'LIMIT', 0, 10000)
            if not ids.err then
                for _, id in ipairs(ids) do look_at(id, queue, outcome) end
            end
        end
        count_kept(queue, outcome, registry)
    end
end
redis.call('HSET', KEYS[1], 'seen', upto, 'kept', 1)
for field, count in pairs(totals) do redis.call('HINCRBY', 'rqxx:totals', field, count) end
store_metrics(upto)
store_recent()
store_ttls()
store_changes()
return counted
