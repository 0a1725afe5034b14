-- Marks a stale entry as being refreshed, if it still has a stamp.
--
-- KEYS[1]  the entry
-- ARGV[1]  the stamp
-- ARGV[2]  the duration of the mark in milliseconds; 0 removes the mark
-- ARGV[3]  the first bytes of an entry that can have a mark
-- ARGV[4]  the offset of the mark in an entry: its end, in milliseconds since 1970, eight little-endian bytes
-- ARGV[5]  1 to keep a mark that has not ended, 0 to overwrite any mark
-- Answers 0 if the entry is marked; the remaining milliseconds of another caller's mark if that was kept; -1 if it is
-- another entry or gone; WRONGTYPE if it is not a string.
--
-- Atomic, because of two callers that find the same stale entry only one may refresh it. The clock is the server's, so
-- the clocks of the callers need not agree. The entry keeps its stamp, its value and its expiry.
local start, at = ARGV[3], tonumber(ARGV[4])
local head = redis.call('GETRANGE', KEYS[1], 0, at + 7)
if string.len(head) < at + 8 or string.sub(head, 1, string.len(start)) ~= start or string.sub(head, 9, 16) ~= ARGV[1] then
  return -1
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- In two halves, because `struct` uses the server's word size, which may be four bytes.
local low, high = struct.unpack('<I4I4', head, at + 1)
local left = high * 2^32 + low - now
if ARGV[5] == '1' and left > 0 then
  -- Only a damaged mark exceeds the largest answer.
  return math.min(left, 2^53)
end
local life = tonumber(ARGV[2])
local mark = life > 0 and now + life or 0
redis.call('SETRANGE', KEYS[1], at, struct.pack('<I4I4', mark % 2^32, math.floor(mark / 2^32)))
return 0
