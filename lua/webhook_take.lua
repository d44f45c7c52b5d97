-- Take webhook deliveries that are due, under a lease: those of a deliverer that died come back.
-- KEYS: 1 the outbox
-- ARGV: 1 token of the lease, 2 most deliveries to take, 3 most at once for one receiver,
--       then for each receiver that is being sent to: its name, how many, whether it is slow (1 or 0)
-- Returns: {more to look at, {{delivery, receiver, {field, value...}}...}}
-- Dynamic keys: see includes/webhooks.lua
--- @include time
--- @include transitions
--- @include webhooks

local token, most, most_per_receiver = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local most_looked_at, lease, default_timeout, longest_timeout, slow_wait = 100, 60, 10, 300, 2
local busy, slow = {}, {}
for i = 4, #ARGV, 3 do
    busy[ARGV[i]] = tonumber(ARGV[i + 1])
    slow[ARGV[i]] = ARGV[i + 2] == '1'
end

local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_us, 'LIMIT', 0, most_looked_at)
local scores, gone, taken = {}, {}, {}
local function move(delivery, seconds)
    scores[#scores + 1] = now_us + seconds * 1000000
    scores[#scores + 1] = delivery
end
for _, delivery in ipairs(due) do
    if #taken == most then break end
    local url = attempt('HGET', delivery_key(delivery), 'url')
    if type(url) ~= 'string' then
        gone[#gone + 1] = delivery
    else
        local receiver = receiver_of(url)
        if slow[receiver] then
            move(delivery, slow_wait)   -- Lets those behind it through.
        elseif (busy[receiver] or 0) < most_per_receiver then
            busy[receiver] = (busy[receiver] or 0) + 1
            local timeout = count_of(attempt('HGET', delivery_key(delivery), 'timeout'))
            timeout = math.min(timeout > 0 and timeout or default_timeout, longest_timeout)
            move(delivery, lease + timeout)
            taken[#taken + 1] = {delivery, receiver, timeout}
        end
    end
end
if #scores == 0 and #gone == 0 then return {0, {}} end
if #scores > 0 then redis.call('ZADD', KEYS[1], unpack(scores)) end
if #gone > 0 then redis.call('ZREM', KEYS[1], unpack(gone)) end
for _, row in ipairs(taken) do
    local key = delivery_key(row[1])
    attempt('HSET', key, 'lease', token, 'timeout', row[3])
    row[3] = attempt('HGETALL', key)
end
return {(#due == most_looked_at or #taken == most) and 1 or 0, taken}
