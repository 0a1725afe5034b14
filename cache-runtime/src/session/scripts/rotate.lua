-- Gives a session another name, under which it goes on. Under the old one nothing is found any more, but for a minute it can be ended:
-- `<prefix>session:{<tag>}:<sid>:moved` says what it is called now.
--
-- ARGV[3]  the session
-- ARGV[4]  version and revision that it must have, as they are in the record
-- ARGV[5]  the new beginning of the record, up to its last use
-- ARGV[6]  what comes after the last use
-- ARGV[7]  its new name
-- Answers  as `save.lua`
--
-- Atomic, so that at no moment both names count, or none.
local sid, new = ARGV[3], ARGV[7]
local record, ends = find(sid)
local answer = 0
if record and string.sub(record, 1, 9) ~= ARGV[4] then
  answer = 1
elseif record then
  redis.call('SET', base .. new, ARGV[5] .. string.sub(record, 26, 41) .. ARGV[6])
  keep(new, ends)
  remove(sid)
  local known = math.min(now + 60000, ends)
  redis.call('SET', base .. sid .. ':moved', struct.pack('>I8', known) .. new, 'PXAT', known)
  answer = ends
end
settle()
return { now, answer }
