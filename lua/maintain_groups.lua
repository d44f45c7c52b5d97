-- Take ids without a job out of groups, and empty groups off the list, a bounded part at a time.
-- KEYS: 1 when groups were last seen to
-- ARGV: 1 seconds between passes, 2 how many groups, 3 how many members of each
-- Returns: how many ids were taken out
-- Dynamic keys: rq:groups, rq:group:<name>, job hashes
-- Source: rq/group.py Group.clean_registries (RQ 2.10)
if not redis.call('SET', KEYS[1], '1', 'EX', ARGV[1], 'NX') then return 0 end
local groups = redis.pcall('SRANDMEMBER', 'rq:groups', ARGV[2])
if groups.err then return 0 end
local removed = 0
for _, name in ipairs(groups) do
    local key = 'rq:group:' .. name
    local members = redis.pcall('SRANDMEMBER', key, ARGV[3])
    if not members.err then
        for _, id in ipairs(members) do
            if redis.call('EXISTS', 'rq:job:' .. id) == 0 then removed = removed + redis.call('SREM', key, id) end
        end
        if redis.call('EXISTS', key) == 0 then redis.call('SREM', 'rq:groups', name) end
    end
end
return removed
