-- Settle a webhook delivery that was taken: it is removed, or due again later.
-- Fenced: whose lease was given to another changes nothing.
-- KEYS: 1 the outbox
-- ARGV: 1 delivery, 2 token of the lease, 3 D delivered, F failed, X failed for good, R returned without an attempt,
--       4 status code or "", 5 error or "", 6 seconds to wait that the receiver asked for, or 0
-- Returns: {what, attempt, of, wait}; what: 0 refused (lease lost), 1 delivered, 2 failed for good,
--       3 due again in `wait` seconds
-- Dynamic keys: see includes/webhooks.lua
--- @include time
--- @include transitions
--- @include webhooks

local delivery, token, outcome, code, problem, asked = unpack(ARGV)
local most_attempts, first_wait, growth, longest_wait = 8, 10, 3, 3600
local key = delivery_key(delivery)
local lease, id, job_status, method, url, attempts = unpack(redis.call('HMGET', key,
    'lease', 'job_id', 'job_status', 'method', 'shown_url', 'attempts'))
if lease ~= token or not id then return {0, 0, most_attempts, 0} end
if outcome == 'R' then
    redis.call('ZADD', KEYS[1], now_us, delivery)
    attempt('HDEL', key, 'lease')
    return {3, count_of(attempts), most_attempts, 0}
end

attempts = count_of(attempts) + 1
local what, word, wait = 1, 'delivered', 0
if outcome == 'X' or (outcome == 'F' and attempts >= most_attempts) then
    what, word = 2, 'failed'
elseif outcome == 'F' then
    wait = math.max(first_wait * growth ^ (attempts - 1), count_of(asked))
    what, word, wait = 3, 'retried', math.min(wait, longest_wait)
end
if what == 3 then
    redis.call('ZADD', KEYS[1], now_us + wait * 1000000, delivery)
    attempt('HDEL', key, 'lease')
    attempt('HSET', key, 'attempts', attempts)
else
    redis.call('ZREM', KEYS[1], delivery)
    attempt('DEL', key)
    attempt('SREM', deliveries_key(id), delivery)
end
attempt('HINCRBY', 'rqxx:totals', 'webhook_' .. word .. '|', 1)
log_webhook(id, 'delivery', delivery, 'job_status', job_status or '', 'method', method or '', 'url', url or '',
    'attempt', attempts, 'outcome', word, 'code', code, 'error', problem)
return {what, attempts, most_attempts, wait}
