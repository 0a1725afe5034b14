-- Stores what a session holds, unless it ended or somebody else stored it since.
--
-- ARGV[3]  the session
-- ARGV[4]  version and revision that it must have, as they are in the record
-- ARGV[5]  the new beginning of the record, up to its last use
-- ARGV[6]  what comes after the last use
-- Answers  the time, and the session's end; or 0 if it ended, or 1 if somebody else stored it
--
-- Atomic, because a late save must never bring back a session that somebody has ended.
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
