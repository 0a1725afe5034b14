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
if last == again and now - last >= tonumber(ARGV[6]) then
  local extend, use = tonumber(ARGV[5]), struct.pack('>I8', now)
  ends = math.min(math.max(ends, math.min(ends + extend, now + tonumber(ARGV[4]) + extend)), absolute)
  -- As `keep` and `settle` do, by the shortest way, since this is done with every request.
  redis.call('SET', base .. sid, string.sub(record, 1, 25) .. use .. use .. string.sub(record, 42), 'PXAT', ends)
  redis.call('ZADD', index, ends, sid)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', now)
  redis.call('PEXPIREAT', index, ends, 'GT')
end
return { now, ends, last, record }
