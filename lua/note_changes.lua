-- Tell indexes of jobs that a transaction has written. See includes/changes.lua.
-- ARGV: job ids
-- Returns: nothing
-- Dynamic keys: rqxx:changes
--- @include changes
for _, id in ipairs(ARGV) do note_change(id) end
store_changes()
