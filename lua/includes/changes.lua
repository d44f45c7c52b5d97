-- Tells indexes which jobs this script has changed. Needs nothing.
--
-- The stream `rqxx:changes` has an entry for each call of a script: `ids`, with a space between. It is written only while
-- somebody wants it, who renews `rqxx:changes:wanted`, and holds a few MB at most: who falls behind looks at all jobs.
local changed, changed_ids, changes_wanted = {}, {}, nil

local function note_change(id)
    if changed_ids[id] then return end
    changed_ids[id] = true
    changed[#changed + 1] = id
end

-- The end of a script that changes jobs.
local function store_changes()
    if #changed == 0 then return end
    if changes_wanted == nil then changes_wanted = redis.pcall('EXISTS', 'rqxx:changes:wanted') == 1 end
    if changes_wanted then
        redis.pcall('XADD', 'rqxx:changes', 'MAXLEN', '~', #changed > 4 and '2000' or '20000', '*',
            'ids', table.concat(changed, ' '))
    end
    changed, changed_ids = {}, {}
end
