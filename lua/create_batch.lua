-- Make a batch that is open for jobs.
-- KEYS: 1 the batch, 2 the group of its name
-- ARGV: 1 id, 2 parent or "", 3 TTL after completion (s), 4 how long it stays open after the last job was added (s),
--       then for each job that is to follow: "on_complete" | "on_success" | "on_first_failure", job id, how many fields,
--       field, value, ...
-- Returns: {code}; code 1 made, 0 there is a batch or group of this name, 2 no such parent, 3 the parent is complete,
--       4 it is canceled, 5 batches are too deep in each other. Nothing was written unless it is 1.
-- Dynamic keys: see includes/batches.lua
--- @include time
--- @include transitions
--- @include batches
local id, parent = ARGV[1], ARGV[2]
if redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then return {0} end
if parent ~= '' then
    if not batch_of(parent) then return {2} end
    local state, wants = unpack(redis.call('HMGET', batch_key(parent), 'state', 'wants'))
    if wants == 'cancel' then return {4} end
    if state == 'complete' then return {3} end
    local depth, ancestor = 1, parent
    while ancestor do
        depth = depth + 1
        if depth > deepest then return {5} end
        ancestor = redis.call('HGET', batch_key(ancestor), 'parent')
    end
end
redis.call('HSET', KEYS[1], 'id', id, 'state', 'open', 'total', 0, 'finished', 0, 'failed', 0, 'stopped', 0, 'canceled', 0,
    'deleted', 0, 'created_at', now_iso, 'ttl', ARGV[3], 'open_for', ARGV[4],
    'open_until', us_text(now_us + tonumber(ARGV[4]) * 1000000), 'last_at', us_text(now_us), 'last_done', 0)
attempt('ZADD', 'rqxx:batches', us_text(now_us), id)
attempt('SADD', 'rqxx:batches:watched', id)
if parent ~= '' then
    attempt('HSET', KEYS[1], 'parent', parent)
    attempt('HSET', batch_key(parent) .. ':children', id, 'waiting')
    attempt('HINCRBY', batch_key(parent), 'children_total', 1)
    attempt('HINCRBY', batch_key(parent), 'children_waiting', 1)
end
local at = 5
while ARGV[at] do
    local what, job, fields = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
    attempt('HSET', KEYS[1], what, job)
    attempt('HSET', KEYS[1] .. ':' .. what, unpack(ARGV, at + 3, at + 2 + 2 * fields))
    at = at + 3 + 2 * fields
end
return {1}
