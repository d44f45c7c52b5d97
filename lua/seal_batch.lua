-- Close a batch for further jobs: it is complete when its jobs are.
-- KEYS: 1 the batch
-- ARGV: 1 its id
-- Returns: 0 no such batch, 1 sealed, 2 it was sealed already
-- Dynamic keys: see includes/batches.lua
--- @include time
--- @include transitions
--- @include batches
local id = ARGV[1]
if not batch_of(id) then return 0 end
if redis.call('HGET', KEYS[1], 'state') ~= 'open' then return 2 end
redis.call('HSET', KEYS[1], 'state', 'running', 'sealed_at', now_iso)
conclude(id)
store_changes()
return 1
