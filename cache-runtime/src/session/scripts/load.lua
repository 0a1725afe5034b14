-- Reads a session and extends it.
--
-- ARGV[3]  the session
-- ARGV[4]  the TTL of a new session
-- ARGV[5]  the duration of an extension; empty if the session ends one TTL after its last use
-- ARGV[6]  the time after a use in which another use extends nothing
-- Answers  the time, and the session's end, its last use before this one, and its record; or only the time if there is none
--
-- Atomic, because a session that ends at this moment must not come back. An extension never moves its end earlier, except
-- to the latest possible end.
-- A record that cannot be read is returned as it is: the caller has the key and reports it. If Redis has no memory, the
-- session is read but not extended.
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
-- The clock may have gone back since then.
if last == again and math.max(now - last, 0) >= tonumber(ARGV[6]) then
  local extend, use = tonumber(ARGV[5]), struct.pack('>I8', now)
  local extended = now + tonumber(ARGV[4])
  if extend then
    extended = math.max(ends, math.min(ends, extended) + extend)
  end
  extended = math.min(extended, absolute)
  -- The same as `keep` and `settle`, but shorter and once a second, because it runs with every request.
  local used = string.sub(record, 1, 25) .. use .. use .. string.sub(record, 42)
  local stored = redis.pcall('SET', base .. sid, used, 'PXAT', extended)
  if not failed(stored, 'OOM') then
    if failed(stored, '') then
      redis.call('SET', base .. sid, used, 'PXAT', extended)
    end
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
