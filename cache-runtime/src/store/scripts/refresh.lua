-- Marks a stale entry as being refreshed, if it still bears a stamp.
--
-- KEYS[1]  the entry
-- ARGV[1]  the stamp
-- ARGV[2]  for how long, in milliseconds; 0 takes the mark away
-- ARGV[3]  where in an entry the mark is: until when, in milliseconds since 1970, eight little-endian bytes
-- ARGV[4]  1 to leave a mark alone that still stands, 0 to set it whatever stands
-- Answers 0 if the entry is marked, for how many milliseconds somebody else's mark stands if that was left alone, -1 if the
-- entry is another one or gone; WRONGTYPE if it is no string.
--
-- Atomic, because of two who find the same stale entry one must refresh it and no more. The clock is the server's, so that the
-- clocks of those who ask need not agree. The entry keeps its stamp, its value and its expiry. What is too short to hold a mark
-- is none of our entries, whatever its bytes.
local at = tonumber(ARGV[3])
local mark = redis.call('GETRANGE', KEYS[1], at, at + 7)
if redis.call('GETRANGE', KEYS[1], 8, 15) ~= ARGV[1] or string.len(mark) < 8 then
  return -1
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = struct.unpack('<I8', mark)
if ARGV[4] == '1' and held > now then
  return held - now
end
local life = tonumber(ARGV[2])
redis.call('SETRANGE', KEYS[1], at, struct.pack('<I8', life > 0 and now + life or 0))
return 0
