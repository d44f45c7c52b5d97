-- Free the slots of rate limits that nobody needs any more, let waiting jobs through, and forget limits without jobs, a
-- bounded part at a time.
-- KEYS: 1 when they were last seen to
-- ARGV: 1 seconds between passes, 2 how many limits, 3 how many slots of each
-- Returns: how many slots were freed
-- Dynamic keys: rq:rl-keys, rq:rl:<key> and those beside it; see includes/transitions.lua
-- Source: rq/rate_limit.py RateLimitRegistry.cleanup (RQ 3.0)
--- @include time
--- @include transitions
if not redis.call('SET', KEYS[1], '1', 'EX', ARGV[1], 'NX') then return 0 end
local cursor_key = KEYS[1] .. ':cursor'
local scan = attempt('SSCAN', 'rq:rl-keys', attempt('GET', cursor_key) or '0', 'COUNT', ARGV[2])
if scan.err then return 0 end
if scan[1] == '0' then attempt('DEL', cursor_key) else attempt('SET', cursor_key, scan[1], 'EX', 86400) end

local freed = 0
for _, key in ipairs(scan[2]) do
    local limit = 'rq:rl:' .. key
    local allowed, waiting = limit .. ':allowed', limit .. ':rate_limited'
    for _, id in ipairs(attempt('ZRANDMEMBER', allowed, ARGV[3])) do
        release_slot(id, key)
        if not attempt('ZSCORE', allowed, id) then freed = freed + 1 end
    end
    fill_slots(key, count_of(attempt('HGET', limit, 'concurrency')))
    if attempt('EXISTS', allowed, waiting) == 0 then
        attempt('SREM', 'rq:rl-keys', key)
        attempt('DEL', limit)
    end
end
store_changes()
return freed
