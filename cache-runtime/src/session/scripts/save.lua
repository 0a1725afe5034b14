-- Stores the data of a session, unless it has ended or another request stored it since.
--
-- ARGV[3]  the session
-- ARGV[4]  the version and revision that the record must have
-- ARGV[5]  the new beginning of the record, up to its last use
-- ARGV[6]  the part of the record after the last use
-- Answers  the time, and the session's end; or 0 if it has ended, or 1 if another request stored it
--
-- Atomic, because a late save must never bring back a session that has ended.
local sid = ARGV[3]
local record, ends = find(sid)
local answer = 0
if record and string.sub(record, 1, 9) ~= ARGV[4] then
  answer = 1
elseif record then
  redis.call('SET', base .. sid, ARGV[5] .. string.sub(record, 26, 41) .. ARGV[6], 'KEEPTTL')
  answer = ends
end
settle()
return { now, answer }
