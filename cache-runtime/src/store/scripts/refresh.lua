-- Marks a stale entry as being refreshed, if it still bears a stamp.
--
-- KEYS[1]  the entry
-- ARGV[1]  the stamp
-- ARGV[2]  for how long, in milliseconds; 0 takes the mark away
-- ARGV[3]  how an entry begins that has such a mark
-- ARGV[4]  where in an entry the mark is: until when, in milliseconds since 1970, eight little-endian bytes
-- ARGV[5]  1 to leave a mark alone that still stands, 0 to set it whatever stands
-- Answers 0 if the entry is marked, for how many milliseconds somebody else's mark stands if that was left alone, -1 if the
-- entry is another one or gone; WRONGTYPE if it is no string.
--
-- Atomic, because of two who find the same stale entry one must refresh it and no more. The clock is the server's, so that the
-- clocks of those who ask need not agree. The entry keeps its stamp, its value and its expiry.
local start, at = ARGV[3], tonumber(ARGV[4])
local head = redis.call('GETRANGE', KEYS[1], 0, at + 7)
if string.len(head) < at + 8 or string.sub(head, 1, string.len(start)) ~= start or string.sub(head, 9, 16) ~= ARGV[1] then
  return -1
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- In two halves, because `struct` counts in words, and some servers have words of four bytes.
local low, high = struct.unpack('<I4I4', head, at + 1)
local left = high * 2^32 + low - now
if ARGV[5] == '1' and left > 0 then
  -- No answer can be larger, and only a damaged mark is.
  return math.min(left, 2^53)
end
local life = tonumber(ARGV[2])
local mark = life > 0 and now + life or 0
redis.call('SETRANGE', KEYS[1], at, struct.pack('<I4I4', mark % 2^32, math.floor(mark / 2^32)))
return 0
