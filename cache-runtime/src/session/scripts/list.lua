-- Returns all sessions of a user.
--
-- Answers  the time, and for each session its name, its end and its record, the earliest end first
--
-- Atomic, because a session that is renamed at the same time must be listed exactly once.
local answer = { now }
settle()
for _, sid in ipairs(redis.call('ZRANGE', index, 0, -1)) do
  local record, ends = find(sid)
  if record then
    answer[#answer + 1] = sid
    answer[#answer + 1] = ends
    answer[#answer + 1] = record
  end
end
return answer
