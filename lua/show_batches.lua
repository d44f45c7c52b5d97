-- How batches stand; nothing is written.
-- ARGV: ids; or "", how many of the newest to pass over, how many to show
-- Returns: {now in us, {{id, pending, hash as a list, some of its children as a list}...}}; batches that are gone are left out
-- Dynamic keys: see includes/batches.lua
--- @include time
local ids = ARGV
if ARGV[1] == '' then
    ids = redis.pcall('ZREVRANGE', 'rqxx:batches', ARGV[2], tonumber(ARGV[2]) + tonumber(ARGV[3]) - 1)
    if ids.err then ids = {} end
end
local rows = {}
for _, id in ipairs(ids) do
    local key = 'rqxx:batch:' .. id
    local hash = redis.pcall('HGETALL', key)
    local pending = redis.pcall('SCARD', key .. ':pending')
    if not hash.err and #hash > 0 and type(pending) == 'number' then
        local children = redis.pcall('HSCAN', key .. ':children', '0', 'COUNT', 1000)
        rows[#rows + 1] = {id, pending, hash, children.err and {} or children[2]}
    end
end
return {now_us, rows}
