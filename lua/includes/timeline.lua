-- Unusual things that happen to a job are told in its hash (`rqxx_timeline`: JSON objects, one per line, the newest 50):
-- so they live exactly as long as the job, and a job to which nothing of the kind happens costs nothing more. What
-- always happens is read from the hash, the executions and the results. Needs time.lua. Read by ops/timeline.cpp.
local most_events, most_event_bytes = 50, 32768

-- `facts`: texts by name, such as worker, execution, by, details; their names are those of the API.
local function note_event(id, event, facts)
    facts.at, facts.event = now_iso, event
    local key, field = 'rq:job:' .. id, 'rqxx_timeline'
    local line = cjson.encode(facts)
    local told = redis.pcall('HGET', key, field)
    if type(told) ~= 'string' then told = '' end
    local _, lines = string.gsub(told, '\n', '')
    while told ~= '' and (lines >= most_events or #told + #line > most_event_bytes) do
        told = string.match(told, '^[^\n]*\n(.*)$') or ''
        lines = lines - 1
    end
    redis.pcall('HSET', key, field, told .. line .. '\n')
end

-- By whom a job was acted on; nobody is named where nobody gave a name.
local function actor(text) return text ~= '' and text or nil end
