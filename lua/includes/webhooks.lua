-- The outbox of webhooks: what a transition owes the outside world is written with it. Needs transitions.lua.
--
-- `rqxx:webhooks`: delivery id -> when it is due (us). `rqxx:webhook:<id>`: what is to be sent, and how it went so far.
local most_webhooks = 20

-- Notes the deliveries that a job asks for when it ends as `status` (finished or failed).
-- `data`: its call as stored, for the function's name. `exc_string`: as in the result entry, or ''.
-- Source: rq/webhooks.py, rq/job.py Job.send_webhooks (RQ 2.10); W34: RQ sends after the commit, or never.
local function add_webhooks(id, webhooks, status, data, enqueued_at, exc_string)
    if not webhooks or webhooks == '' then return end
    local ok, list = pcall(cjson.decode, webhooks)
    if not ok or type(list) ~= 'table' then return end
    for i = 1, math.min(#list, most_webhooks) do
        local hook = list[i]
        if type(hook) == 'table' and hook.job_status == status and type(hook.url) == 'string' then
            local delivery = attempt('INCR', 'rqxx:webhooks:last')
            if type(delivery) == 'number' then
                local key = 'rqxx:webhook:' .. delivery
                attempt('HSET', key, 'job_id', id, 'job_status', status, 'url', hook.url,
                    'method', type(hook.method) == 'string' and hook.method or 'GET',
                    'headers', type(hook.headers) == 'table' and cjson.encode(hook.headers) or '',
                    'timeout', count_of(hook.timeout), 'data', data or '', 'enqueued_at', enqueued_at or '',
                    'ended_at', now_iso, 'exc_string', exc_string, 'created_at', now_iso, 'attempts', 0)
                attempt('ZADD', 'rqxx:webhooks', now_us, delivery)
            end
        end
    end
end
