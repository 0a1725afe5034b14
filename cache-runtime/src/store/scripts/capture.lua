-- Returns the stamp of a tag, and makes it live long enough.
--
-- KEYS[1]  the record of the tag
-- ARGV[1]  the stamp of a tag that has none
-- ARGV[2]  how many milliseconds the record has to live
-- ARGV[3]  how many milliseconds it gets if it would live for less
-- Answers what the record holds; WRONGTYPE if it is not a string.
--
-- Atomic, because a fence that replaced the stamp between the check and the new expiry would stay for as long as a stamp.
-- A record that lives long enough is not changed: each change is announced to the processes that track it.
local there = redis.call('GET', KEYS[1])
if not there then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
  return ARGV[1]
end
if string.len(there) == string.len(ARGV[1]) then
  local left = redis.call('PTTL', KEYS[1])
  if left >= 0 and left < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
  end
end
return there
