-- The jobs that a job depends on and those that wait for it, and so on. Changes nothing.
-- ARGV: 1 job id, 2 most jobs, 3 most bytes of a description
-- Returns: {} when there is no such job; else {{{id, status ("" none), queue, description, 1 when it is gone}...},
--       {{id of the one that goes first, id of the one that waits for it}...}, 1 when there are more}
--       Breadth first, so that the nearest are there. RQ forgets who waited for a job once it has let them go: those are
--       found from their own side alone.
-- Dynamic keys: hashes of jobs, their dependents
local first, most, longest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local most_of_one = 50   -- neighbours that are looked at of one job, in each direction

local function list(...)
    local reply = redis.pcall(...)
    return reply.err and {} or reply
end

local function is_id(id) return type(id) == 'string' and string.find(id, '^[%w_-]+$') and #id <= 200 end

local function parents_of(named, only)
    local ok, ids = pcall(cjson.decode, named or '')
    if not ok or type(ids) ~= 'table' then ids = {only or nil} end
    return ids
end

if redis.call('EXISTS', 'rq:job:' .. first) == 0 then return {} end

local nodes, edges, more = {}, {}, 0
local known, drawn = {[first] = true}, {}
local waiting = {first}

local function join(from, to, met)
    if not is_id(met) then return end
    if not known[met] then
        if #waiting >= most then
            more = 1
            return
        end
        known[met] = true
        waiting[#waiting + 1] = met
    end
    local edge = from .. ' ' .. to
    if not drawn[edge] then
        drawn[edge] = true
        edges[#edges + 1] = {from, to}
    end
end

local at = 0
while at < #waiting do
    at = at + 1
    local id = waiting[at]
    local key = 'rq:job:' .. id
    local fields = list('HMGET', key, 'status', 'origin', 'description', 'dependency_ids', 'dependency_id')
    local status, queue, description = fields[1] or '', fields[2] or '', fields[3] or ''
    local gone = not (fields[1] or fields[2] or fields[3]) and redis.call('EXISTS', key) == 0
    nodes[#nodes + 1] = {id, status, queue, string.sub(description, 1, longest), gone and 1 or 0}
    local parents = parents_of(fields[4], fields[5])
    for i = 1, math.min(#parents, most_of_one) do join(parents[i], id, parents[i]) end
    if #parents > most_of_one then more = 1 end
    local children = list('SRANDMEMBER', key .. ':dependents', most_of_one + 1)
    table.sort(children)
    if #children > most_of_one then more = 1 end
    for i = 1, math.min(#children, most_of_one) do join(id, children[i], children[i]) end
end
return {nodes, edges, more}
