-- What stands under a job's key, as it is stored. Reads only; the answer is bounded whatever is there.
-- KEYS: 1 job hash        ARGV: 1 most bytes of a value
-- Returns: {type, TTL in ms or -1, how many fields, queue, {name (cut), bytes of the value, value (cut), ...}}
--       Of more than 200 fields those of RQ are told; no value is read that is larger than 1 MB.
-- Dynamic keys: none
local key, most = KEYS[1], tonumber(ARGV[1])
local most_fields, most_read, longest_name, room = 200, 1048576, 200, 2097152
local of_rq = {'status', 'origin', 'data', 'description', 'created_at', 'enqueued_at', 'started_at', 'ended_at', 'last_heartbeat',
    'worker_name', 'timeout', 'result_ttl', 'failure_ttl', 'ttl', 'meta', 'result', 'exc_info', 'dependency_ids', 'dependency_id',
    'retries_left', 'retry_intervals', 'number_of_retries', 'group_id', 'rate_limit_key', 'rqxx_timeline'}

local kind = redis.call('TYPE', key).ok
if kind ~= 'hash' then return {kind, redis.call('PTTL', key), 0, '', {}} end
local count = redis.call('HLEN', key)
local names = count <= most_fields and redis.call('HKEYS', key) or of_rq
table.sort(names)
local fields = {}
for _, name in ipairs(names) do
    if redis.call('HEXISTS', key, name) == 1 then
        local size = redis.call('HSTRLEN', key, name)
        local value = ''
        if size <= most_read and room > 0 then value = string.sub(redis.call('HGET', key, name), 1, most) end
        room = room - #value
        fields[#fields + 1] = string.sub(name, 1, longest_name)
        fields[#fields + 1] = size
        fields[#fields + 1] = value
    end
end
return {kind, redis.call('PTTL', key), count, string.sub(redis.call('HGET', key, 'origin') or '', 1, 600), fields}
