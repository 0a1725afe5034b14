-- Reads a session and extends it.
--
-- ARGV[3]  the session
-- ARGV[4]  the life of a new session
-- ARGV[5]  by how much it is extended
-- ARGV[6]  how long after a use the next one extends nothing
-- Answers  the time, and the session's end, its last use before this one, and its record; or only the time if there is none
--
-- Atomic, because a session that ends at this moment must not come back. Its end is never lowered, except to the latest possible one.
-- What cannot be read is answered as it is: who asks has the key, and will say so.
local sid = ARGV[3]
local record, ends = find(sid)
if not record then
  settle()
  return { now }
end
if #record < 41 then
  return { now, ends, 0, record }
end
local absolute, last, again = struct.unpack('>I8I8I8', record, 18)
if absolute <= now then
  remove(sid)
  settle()
  return { now }
end
local extend = tonumber(ARGV[5])
if last == again and now - last >= tonumber(ARGV[6]) then
  ends = math.min(math.max(ends, math.min(ends + extend, now + tonumber(ARGV[4]) + extend)), absolute)
  redis.call('SETRANGE', base .. sid, 25, struct.pack('>I8I8', now, now))
  keep(sid, ends)
  settle()
end
return { now, ends, last, record }
