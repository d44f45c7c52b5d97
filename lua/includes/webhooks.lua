-- The outbox of webhooks: what a transition owes the outside world is written with it. Needs transitions.lua.
--
-- `rqxx:webhooks`: delivery id -> when it is due (us). `rqxx:webhook:<id>`: what is to be sent, and how it went so far.
-- `rqxx:webhooks_of:<job id>`: its deliveries that are not settled. `rqxx:webhook_log:<job id>`: what was tried.
local outbox = 'rqxx:webhooks'
local most_webhooks, most_pending = 20, 100000
local longest_kept = 604800   -- A week.

local function delivery_key(delivery) return 'rqxx:webhook:' .. delivery end
local function deliveries_key(id) return 'rqxx:webhooks_of:' .. id end

-- The URL for people to see, and the server that it names: neither with user and password.
local function shown_url(url)
    return (string.gsub(string.sub(url, 1, 500), '^([%a][%w+.-]*://)[^/?#]*@', '%1***@'))
end
local function receiver_of(url)
    local authority = string.match(url, '^[%a][%w+.-]*://([^/?#]*)') or ''
    return string.sub(string.lower(string.match(authority, '[^@]*$')), 1, 255)
end

-- Notes one attempt, or why there was none. Kept as long as the job is, for a week at most.
local function log_webhook(id, ...)
    local log = 'rqxx:webhook_log:' .. id
    attempt('XADD', log, 'MAXLEN', 50, '*', ...)
    local ttl = attempt('TTL', job_key(id))
    if type(ttl) ~= 'number' or ttl == -1 then ttl = longest_kept end
    if ttl < 0 then ttl = 86400 end   -- The job is gone already.
    attempt('EXPIRE', log, math.min(math.max(ttl, 1), longest_kept))
end

local function refuse_webhook(id, status, url, why)
    attempt('HINCRBY', 'rqxx:totals', 'webhook_failed|', 1)
    log_webhook(id, 'delivery', '', 'job_status', status, 'method', '', 'url', shown_url(url), 'attempt', 0,
        'outcome', 'failed', 'code', '', 'error', why)
end

-- Notes the deliveries that a job asks for when it ends as `status` (finished or failed).
-- `data`: its call as stored, for the function's name. `exc_string`: as in the result entry, or ''.
-- Source: rq/webhook.py, rq/job.py Job.send_webhooks (RQ 2.10); W34: RQ sends after the commit, or never.
local function add_webhooks(id, webhooks, status, data, enqueued_at, exc_string)
    if not webhooks or webhooks == '' then return end
    local ok, list = pcall(cjson.decode, webhooks)
    if not ok or type(list) ~= 'table' then return end
    local count = 0
    for _, hook in ipairs(list) do
        if type(hook) == 'table' and hook.job_status == status and type(hook.url) == 'string' then
            count = count + 1
            if count > most_webhooks then
                return refuse_webhook(id, status, hook.url, 'a job has at most ' .. most_webhooks .. ' webhooks')
            end
            local pending = attempt('ZCARD', outbox)
            local delivery = attempt('INCR', 'rqxx:webhooks:last')
            if type(pending) ~= 'number' or type(delivery) ~= 'number' or pending >= most_pending then
                return refuse_webhook(id, status, hook.url, 'too many deliveries are pending')
            end
            local method = hook.method
            if method == nil then method = 'GET' end
            if type(method) ~= 'string' then method = '?' end
            local encoded, headers = true, ''
            if hook.headers ~= nil and hook.headers ~= cjson.null then
                encoded, headers = pcall(cjson.encode, hook.headers)   -- NaN cannot be encoded
            end
            local timeout = count_of(hook.timeout)
            attempt('HSET', delivery_key(delivery), 'job_id', id, 'job_status', status, 'url', hook.url,
                'shown_url', shown_url(hook.url), 'method', method, 'headers', encoded and headers or '?',
                'timeout', timeout, 'data', method == 'POST' and data or '', 'enqueued_at', enqueued_at or '',
                'ended_at', now_iso, 'exc_string', exc_string, 'created_at', now_iso, 'attempts', 0)
            attempt('ZADD', outbox, now_us, delivery)
            attempt('SADD', deliveries_key(id), delivery)
            attempt('EXPIRE', deliveries_key(id), longest_kept)
        end
    end
end
