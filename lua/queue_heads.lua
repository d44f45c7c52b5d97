-- What the page of queues shows beside counts. Reads only.
-- ARGV: names of queues
-- Returns: for each {when the first job of its list was enqueued or "", how many workers listen}
-- Dynamic keys: rq:queue:<name>, rq:workers:<name>, rq:job:<id>
local answer = {}
for i, name in ipairs(ARGV) do
    local head = redis.pcall('LINDEX', 'rq:queue:' .. name, 0)
    local since = type(head) == 'string' and redis.pcall('HGET', 'rq:job:' .. head, 'enqueued_at') or ''
    local workers = redis.pcall('SCARD', 'rq:workers:' .. name)
    answer[i] = {type(since) == 'string' and since or '', type(workers) == 'number' and workers or 0}
end
return answer
