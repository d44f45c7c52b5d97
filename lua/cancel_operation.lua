-- Ask whoever carries an action on many jobs out to stop.
-- KEYS: 1 the operation
-- ARGV: 1 who asks
-- Returns: {code, state}: 0 there is none, 1 asked, 2 it does not run
--- @include time
local state, lease = unpack(redis.call('HMGET', KEYS[1], 'state', 'lease_until'))
if not state then return {0, ''} end
if state ~= 'running' then return {2, state} end
if (tonumber(lease) or 0) <= now_us then return {2, 'interrupted'} end
redis.call('HSET', KEYS[1], 'canceled_by', ARGV[1])
return {1, state}
