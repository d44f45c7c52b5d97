-- How a scheduled job gets to its queue, at its time or before. Needs transitions.lua.
local sound = {}   -- queue -> whether its list can be pushed to

local function can_push(queue)
    if sound[queue] == nil then
        local kind = attempt('TYPE', 'rq:queue:' .. queue).ok
        sound[queue] = kind == 'list' or kind == 'none'
    end
    return sound[queue]
end

-- Of the job's fields enqueue_at_front, enqueue_at_front_on_retry, ended_at.
local function is_for_front(front, on_retry, ended_at)
    return front == '1' or (on_retry == '1' and ended_at and ended_at ~= '') or false
end

-- Whether a stock scheduler may have read that a job due at `score` is to be enqueued, and be about to do it.
local function has_stock_scheduler(queue, score)
    if not score or score > now + 1 then return false end
    local scheduler = attempt('GET', 'rq:scheduler-lock:' .. queue)
    return type(scheduler) == 'string' and not attempt('ZSCORE', 'rqxx:schedulers', scheduler)
end
