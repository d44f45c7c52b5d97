-- Redis' clock: whole seconds, microseconds in the second, and both as RQ writes them.
local time_reply = redis.call('TIME')
local now = tonumber(time_reply[1])
local now_us = now * 1000000 + tonumber(time_reply[2])

-- Microseconds since the epoch as `1795456544.965519` (an "epoch float").
local function epoch_float(us)
    return string.format('%d.%06d', math.floor(us / 1000000), us % 1000000)
end

-- Microseconds since the epoch as `2026-11-23T17:47:37.728246Z`.
-- Source of the calendar arithmetic: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
local function iso(us)
    local seconds = math.floor(us / 1000000)
    local z = math.floor(seconds / 86400) + 719468
    local era = math.floor(z / 146097)
    local doe = z - era * 146097
    local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
    local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
    local mp = math.floor((5 * doy + 2) / 153)
    local day = doy - math.floor((153 * mp + 2) / 5) + 1
    local month = mp < 10 and mp + 3 or mp - 9
    local year = yoe + era * 400 + (month <= 2 and 1 or 0)
    local rest = seconds % 86400
    return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', year, month, day,
        math.floor(rest / 3600), math.floor(rest / 60) % 60, rest % 60, us % 1000000)
end

local now_iso = iso(now_us)
local now_float = epoch_float(now_us)
