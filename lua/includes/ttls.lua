-- Which TTLs are in use. Registries are in the order of expiry: only who knows the TTLs finds what ended last. Needs time.lua.
-- Beside the usual ones: hash `rqxx:ttls:<queue>`, `finished|<TTL>` or `failed|<TTL>` -> when it was last seen.
local usual_ttls = {finished = {500, 3600}, failed = {31536000, 86400}}   -- RQ's and our policy's
local most_ttls = 16
local noted_ttls, kept = {}, {}

-- A job went into the registry `outcome` of a queue.
local function note_ttl(outcome, queue, ttl)
    if ttl == -1 then
        local name = outcome .. '|' .. queue
        kept[name] = (kept[name] or 0) + 1
    elseif ttl > 0 and ttl ~= usual_ttls[outcome][1] and ttl ~= usual_ttls[outcome][2] then
        noted_ttls[queue] = noted_ttls[queue] or {}
        noted_ttls[queue][outcome .. '|' .. string.format('%.0f', ttl)] = true
    end
end

local function forget_oldest_ttls(key)
    local flat = redis.call('HGETALL', key)
    local fields = {}
    for i = 1, #flat, 2 do fields[#fields + 1] = {flat[i], tonumber(flat[i + 1]) or 0} end
    table.sort(fields, function(a, b) return a[2] > b[2] end)
    for i = most_ttls + 1, #fields do redis.call('HDEL', key, fields[i][1]) end
end

local function store_ttls()
    for queue, noted in pairs(noted_ttls) do
        local key, pairs_of_fields = 'rqxx:ttls:' .. queue, {}
        for field in pairs(noted) do
            if #pairs_of_fields < 2 * most_ttls then
                pairs_of_fields[#pairs_of_fields + 1] = field
                pairs_of_fields[#pairs_of_fields + 1] = now
            end
        end
        local added = redis.pcall('HSET', key, unpack(pairs_of_fields))
        if type(added) == 'number' and added > 0 and redis.call('HLEN', key) > most_ttls then forget_oldest_ttls(key) end
    end
    -- What is kept for ever has no time in its score; see sample.lua.
    for name, count in pairs(kept) do redis.pcall('HINCRBY', 'rqxx:sampler', 'own|' .. name, count) end
end

-- The TTLs remembered of a queue: `finished|<TTL>` or `failed|<TTL>` -> when it was last seen.
local function remembered_ttls(queue)
    local flat, remembered = redis.pcall('HGETALL', 'rqxx:ttls:' .. queue), {}
    if flat.err then return remembered end
    for i = 1, #flat, 2 do remembered[flat[i]] = tonumber(flat[i + 1]) or 0 end
    return remembered
end

-- The usual and the remembered TTLs of a registry, as a set.
local function known_ttls(outcome, remembered)
    local ttls = {}
    for _, ttl in ipairs(usual_ttls[outcome]) do ttls[ttl] = true end
    for field in pairs(remembered) do
        local which, ttl = string.match(field, '^(%a+)|(%d+)$')
        if which == outcome then ttls[tonumber(ttl)] = true end
    end
    return ttls
end
