-- Take jobs out of a lane, because they are gone.
-- ARGV: 1 queue, 2 lane, 3.. job ids
-- Returns: how many stood there
-- Dynamic keys: see includes/lanes.lua
--- @include time
local attempt = redis.pcall
--- @include lanes
local left = 0
for i = 3, #ARGV do
    if leave_lane(ARGV[2], ARGV[1], ARGV[i]) then left = left + 1 end
end
count_in_lanes(ARGV[1], -left)
return left
