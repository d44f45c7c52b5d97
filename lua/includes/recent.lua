-- The index of the jobs that were created last, among those that were started: the sorted set `rqxx:recent` of
-- `<created_at>|<job id>`, all with score 0, so that their order is that of the text. Needs time.lua.
local recent, recent_horizon = {}, nil

local function note_recent(id, created_at)
    if not created_at or #created_at > 40
        or not string.find(created_at, '^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d[%.%d]*Z?$') then return end
    -- A time in the future would stay on top.
    recent_horizon = recent_horizon or iso(now_us + 3600000000)
    if created_at > recent_horizon then return end
    recent[#recent + 1] = '0'
    recent[#recent + 1] = created_at .. '|' .. id
end

local function store_recent()
    if #recent == 0 then return end
    for i = 1, #recent, 1000 do
        redis.pcall('ZADD', 'rqxx:recent', unpack(recent, i, math.min(i + 999, #recent)))
    end
    redis.pcall('ZREMRANGEBYRANK', 'rqxx:recent', 0, -1001)
end
