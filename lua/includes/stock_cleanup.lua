-- Whether a stock worker is cleaning up a queue just now. Its lock may be left behind by a crash, or by an exception
-- (W31), for 15 minutes; a pass takes seconds. Source: rq/worker/base.py clean_registries (RQ 2.10).
local function stock_cleans(queue)
    local lock = redis.pcall('TTL', 'rq:clean_registries:' .. queue)
    return type(lock) == 'number' and lock > 869
end
