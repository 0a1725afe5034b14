-- Gives a session a new name. It is no longer found under its old name, but for 1 minute the old name can end it:
-- `<prefix>session:{<tag>}:<sid>:moved` names the first of all names that it had within a minute of each other,
-- `<first>:now` the current name, and `<current>:first` the first name again.
--
-- ARGV[3]  the session
-- ARGV[4]  version and revision that it must have, as they are in the record
-- ARGV[5]  the new beginning of the record, up to its last use
-- ARGV[6]  the part of the record after the last use
-- ARGV[7]  its new name
-- Answers  the same as `save.lua`
--
-- Atomic, so that exactly one of the names is valid at every moment.
local sid, new = ARGV[3], ARGV[7]
local record, ends = find(sid)
local answer = 0
if record and string.sub(record, 1, 9) ~= ARGV[4] then
  answer = 1
elseif record then
  may_keep()
  may_remove()
  settle()
  local first = named(base .. sid .. ':first') or sid
  local known = math.min(now + 60000, ends)
  keep(new, ends, ARGV[5] .. string.sub(record, 26, 41) .. ARGV[6])
  remove(sid)
  redis.call('DEL', base .. sid .. ':first')
  name(base .. sid .. ':moved', first, known)
  name(base .. first .. ':now', new, known)
  name(base .. new .. ':first', first, known)
  answer = ends
end
settle()
return { now, answer }
