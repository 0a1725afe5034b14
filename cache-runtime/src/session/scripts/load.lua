-- Reads a session and extends it.
--
-- ARGV[3]  the session
-- ARGV[4]  the life of a new session
-- ARGV[5]  by how much it is extended
-- ARGV[6]  how long after a use the next one extends nothing
-- Answers  the time, and the session's end, its last use before this one, and its record; or only the time if there is none
--
-- Atomic, because a session that ends at this moment must not come back. Its end is never lowered, except to the latest possible one.
-- What cannot be read is answered as it is: who asks has the key, and will say so. If Redis has no memory it is read and not extended.
local sid = ARGV[3]
local record, ends, absolute = find(sid)
if not record then
  settle()
  return { now }
end
if not absolute then
  return { now, ends, 0, record }
end
local last, again = struct.unpack('>I8I8', record, 26)
-- The clock may have been set back since.
if last == again and math.max(now - last, 0) >= tonumber(ARGV[6]) then
  local extend, use = tonumber(ARGV[5]), struct.pack('>I8', now)
  local extended = math.min(math.max(ends, math.min(ends + extend, now + tonumber(ARGV[4]) + extend)), absolute)
  -- As `keep` and `settle` do, by the shortest way and once a second, since this is done with every request.
  local used = string.sub(record, 1, 25) .. use .. use .. string.sub(record, 42)
  if not failed(redis.pcall('SET', base .. sid, used, 'PXAT', extended), 'OOM') then
    redis.call('ZADD', index, extended, sid)
    if now - last >= 1000 then
      redis.call('ZREMRANGEBYSCORE', index, '-inf', now)
    end
    if set_ends(extended) ~= set_ends(ends) then
      redis.call('PEXPIREAT', index, set_ends(extended), 'GT')
    end
    ends = extended
  end
end
return { now, ends, last, record }
