-- Put a point into the history that charts are drawn from. Each ring is a string of rows of one width; a row begins with its
-- time (4 bytes, seconds, little-endian), by which readers tell it from one that stood in its place a round before.
-- KEYS: 1 the sampler's state, 2 the ring of all queues by seconds
-- ARGV: 1 token of this sampler, then for each row: key, offset, bytes, TTL to set or "". The first is one of KEYS[2].
-- Returns: 1 written, 0 another sampler is at work, 2 this second has its point already (nothing written)
-- Dynamic keys: rqxx:history:*

if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
local time = string.sub(ARGV[4], 1, 4)
local there = redis.pcall('GETRANGE', KEYS[2], ARGV[3], ARGV[3] + 3)
if there == time then return 2 end
for i = 2, #ARGV, 4 do
    local key, offset, bytes, ttl = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    local written = redis.pcall('SETRANGE', key, offset, bytes)
    if type(written) == 'number' and ttl ~= '' then redis.pcall('EXPIRE', key, ttl) end
end
return 1
