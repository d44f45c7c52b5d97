-- Forget the deduplication keys whose job has ended, whoever ran it, a bounded part at a time.
-- KEYS: 1 when they were last seen to, 2 the keys by when they are to be looked at next
-- ARGV: 1 seconds between passes, "" to go on with this one, 2 how many
-- Returns: {how many were forgotten, "1" more are due}
-- Dynamic keys: rqxx:dedup:<key>, job hashes. See enqueue_once.lua
--- @include time
if ARGV[1] ~= '' and not redis.call('SET', KEYS[1], '1', 'EX', ARGV[1], 'NX') then return {0, 0} end
local ended = {finished = true, failed = true, stopped = true, canceled = true}
local kept_for = 30 * 86400   -- without anybody who looks after them

local due = redis.pcall('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[2])
if due.err then return {redis.call('DEL', KEYS[2]), 0} end
local forgotten = 0
for _, name in ipairs(due) do
    local state = 'rqxx:dedup:' .. name
    local fields = redis.pcall('HMGET', state, 'job', 'since', 'until')
    local job, since, until_ = fields[1], tonumber(fields[2]), fields[3]
    local status = job and redis.pcall('HGET', 'rq:job:' .. job, 'status')
    if not job or until_ then
        redis.call('ZREM', KEYS[2], name)   -- throttled since, which has a time of its own; or gone
    elseif type(status) ~= 'string' or ended[status] then
        redis.call('DEL', state)
        redis.call('ZREM', KEYS[2], name)
        forgotten = forgotten + 1
    else
        -- The longer it has waited, the longer it may go on.
        redis.call('ZADD', KEYS[2], now + math.min(math.max(now - (since or 0), 60), 86400), name)
        if redis.call('TTL', state) < kept_for then redis.call('EXPIRE', state, kept_for) end
    end
end
return {forgotten, #due == tonumber(ARGV[2]) and 1 or 0}
