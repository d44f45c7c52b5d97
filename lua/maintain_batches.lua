-- Count the jobs of batches that stock workers ended, or that are gone, a bounded part at a time.
-- KEYS: 1 when batches were last seen to
-- ARGV: 1 seconds between passes, 2 how many jobs to look at, 3 "1": go on with a pass
-- Returns: {looked at, counted, {{batch, "cancel" | "retry"}...}: what was begun and nobody drives any more}
-- Dynamic keys: see includes/transitions.lua and includes/batches.lua
--- @include time
--- @include transitions
--- @include batches
if ARGV[3] ~= '1' and redis.call('EXISTS', KEYS[1]) == 1 then return {0, 0, {}} end
redis.call('SET', KEYS[1], '1', 'EX', ARGV[1])   -- the first write, see transitions
local looked, counted, left_alone = 0, 0, {}

-- The part of a set or hash that is looked at in this pass; the next pass goes on from there.
local function some_of(id, what, command, count)
    local key, cursor = batch_key(id), what .. '_cursor'
    local reply = attempt(command, key .. ':' .. what, attempt('HGET', key, cursor) or '0', 'COUNT', count)
    if reply.err then return {} end
    if reply[1] == '0' then attempt('HDEL', key, cursor) else attempt('HSET', key, cursor, reply[1]) end
    return reply[2]
end

local function see_to(id, count)
    local state, wants, driven_until, open_until, ttl = unpack(attempt('HMGET', batch_key(id), 'state', 'wants', 'driven_until',
        'open_until', 'ttl'))
    if state == 'open' and now_us > (tonumber(open_until) or 0) + count_of(ttl) * 1000000 then
        -- Nobody has added to it for so long that nobody will.
        for_each_key(id, 'UNLINK')
        return
    end
    if (wants == 'cancel' or wants == 'retry') and now_us > (tonumber(driven_until or nil) or 0) then
        left_alone[#left_alone + 1] = {id, wants}
    end
    local ids = some_of(id, 'pending', 'SSCAN', count)
    looked = looked + #ids
    for _, job in ipairs(ids) do
        local status, group, repeats = unpack(attempt('HMGET', job_key(job), 'status', 'group_id', 'repeats_left'))
        local outcome = group ~= id and 'deleted' or has_ended[status] and status
        if outcome and not (outcome == 'finished' and count_of(repeats) > 0) then
            note_end(id, job, outcome)
            counted = counted + 1
        end
    end
    local entries = some_of(id, 'unsuccessful', 'HSCAN', count)
    looked = looked + #entries / 2
    for i = 1, #entries, 2 do
        local job, before = entries[i], string.match(entries[i + 1], '^%a+')
        local status, group = unpack(attempt('HMGET', job_key(job), 'status', 'group_id'))
        if group == id and before ~= 'deleted' and status ~= before then
            counted = counted + 1
            if has_ended[status] then note_end(id, job, status) else note_return(id, job) end
        end
    end
end

local watched = attempt('SRANDMEMBER', 'rqxx:batches:watched', 50)
watched = watched.err and {} or watched
for _, id in ipairs(watched) do
    if batch_of(id) then see_to(id, math.max(math.floor(tonumber(ARGV[2]) / #watched), 20)) end
    if attempt('EXISTS', batch_key(id)) == 0 then attempt('SREM', 'rqxx:batches:watched', id) end
end
store_batches()

-- Entries of batches that have expired.
local listed = attempt('ZRANDMEMBER', 'rqxx:batches', 20)
for _, id in ipairs(listed.err and {} or listed) do
    if attempt('EXISTS', batch_key(id)) == 0 then attempt('ZREM', 'rqxx:batches', id) end
end
return {looked, counted, left_alone}
