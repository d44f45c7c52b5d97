-- Go on being told of changes of jobs, see includes/changes.lua.
--
-- Where nobody wanted to be told just before, the stream ends with a gap: it goes, so that each index finds its place in
-- it gone and looks at all jobs.
-- KEYS: 1 rqxx:changes:wanted, 2 the stream
-- ARGV: 1 for how many seconds, 2 id of the entry that was read last, or ""
-- Returns: {1 the stream has all changes since that entry | 0 it has not, id of the entry to go on from}
local wanted = redis.call('EXISTS', KEYS[1]) == 1
redis.call('SET', KEYS[1], '1', 'EX', ARGV[1])
local read = wanted and ARGV[2] ~= '' and redis.pcall('XRANGE', KEYS[2], ARGV[2], ARGV[2]) or {}
if not wanted or read.err then redis.call('DEL', KEYS[2]) end
local position = read[1] and ARGV[2] or redis.call('XADD', KEYS[2], '*', 'ids', '')
redis.call('EXPIRE', KEYS[2], 3600)
return {read[1] and 1 or 0, position}
