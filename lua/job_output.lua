-- What an execution of a job has written, from a place on. Reads only.
-- KEYS: 1 job hash, 2 list of the job's executions with output, newest first
-- ARGV: 1 job id, 2 execution id or the beginning of one ("": the newest execution), 3 id of the entry before the first
--       that is wanted, 4 most bytes of text (one entry always fits), 5 most entries, 6 most bytes of one entry
-- Returns: {status or nil (no such job), executions with output, execution or "", state,
--       entries {{id, "1" | "2" | "x", text, bytes left out at its end}...}, 1 if there are more}
--       state: 0 the execution has ended, 1 it runs, 2 no such execution, 3 several begin like this, 4 there is none yet
-- Dynamic keys: executions and results of the job, streams of its executions
local job_id, wanted, after = ARGV[1], ARGV[2], ARGV[3]
local most_bytes, most_entries, most_of_entry = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local function list(...)
    local reply = redis.pcall(...)
    return reply.err and {} or reply
end

local status = redis.pcall('HGET', KEYS[1], 'status')
if type(status) == 'table' then
    status = 'unreadable'
elseif not status then
    if redis.call('EXISTS', KEYS[1]) == 0 then return {false, {}, '', 4, {}, 0} end
    status = 'created'
end

local with_output = list('LRANGE', KEYS[2], 0, 49)
local running = {}
for _, execution in ipairs(list('ZRANGE', 'rq:executions:' .. job_id, 0, 49)) do
    if redis.call('EXISTS', 'rq:execution:' .. job_id .. ':' .. execution) == 1 then running[#running + 1] = execution end
end
local settled = {}
for _, entry in ipairs(list('XREVRANGE', 'rq:results:' .. job_id, '+', '-', 'COUNT', 50)) do
    local fields = entry[2]
    for i = 1, #fields, 2 do
        if fields[i] == 'execution_id' then settled[#settled + 1] = fields[i + 1] end
    end
end

-- Ids of our executions begin with the time; those of stock workers, which keep no output, do not.
local function is_ours(execution) return string.sub(execution, 13, 13) == '7' end

local function newest()
    if #running > 0 then return running[#running] end
    local one, other = settled[1], with_output[1]
    if not one or not other then return one or other or '' end
    if is_ours(one) and is_ours(other) then return one > other and one or other end
    return one
end

-- The one that begins so, or why there is none.
local function find(beginning)
    local found
    for _, executions in ipairs({with_output, running, settled}) do
        for _, execution in ipairs(executions) do
            if execution == beginning then return execution end
            if string.sub(execution, 1, #beginning) == beginning and execution ~= found then
                if found then return nil, 3 end
                found = execution
            end
        end
    end
    return found, 2
end

local execution, trouble
if wanted == '' then execution, trouble = newest(), 4 else execution, trouble = find(wanted) end
if not execution or execution == '' then return {status, with_output, '', trouble, {}, 0} end
local state = 0
for _, one in ipairs(running) do if one == execution then state = 1 end end

local stream = KEYS[2] .. ':' .. execution
local entries, bytes, more = {}, 0, false
repeat
    local batch = list('XRANGE', stream, '(' .. after, '+', 'COUNT', 16)
    for _, entry in ipairs(batch) do
        local name, text = entry[2][1], entry[2][2]
        local size = math.min(#text, most_of_entry)
        if #entries >= most_entries or (#entries > 0 and bytes + size > most_bytes) then
            more = true
            break
        end
        entries[#entries + 1] = {entry[1], name, string.sub(text, 1, size), #text - size}
        bytes = bytes + size
        after = entry[1]
    end
until more or #batch < 16
return {status, with_output, execution, state, entries, more and 1 or 0}
