-- Removes a claim that its store would never end, if it still bears a stamp.
--
-- KEYS[1]  the claim
-- ARGV[1]  the stamp
-- ARGV[2]  where in a claim it says itself when it ends: milliseconds since 1970, eight little-endian bytes
-- ARGV[3]  by how many milliseconds the clock that it was made by may differ from the server's
-- Answers 1 if it was removed, 0 if it is another one, gone, or not dead; WRONGTYPE if it is no string.
--
-- Atomic, because what replaced the claim between the comparison and the step would be removed. A claim without an expiry, or with
-- a later one than it says, is not as it was placed: a tool has copied or changed it, and it would keep its key for ever.
local ends = tonumber(ARGV[2])
local head = redis.call('GETRANGE', KEYS[1], 8, ends + 7)
if string.len(head) < ends or string.sub(head, 1, 8) ~= ARGV[1] then
  return 0
end
local ttl = redis.call('PTTL', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- In two halves, because `struct` counts in words, and some servers have words of four bytes.
local low, high = struct.unpack('<I4I4', head, ends - 7)
local last = high * 2^32 + low + ARGV[3]
if ttl >= 0 and now < last and now + ttl <= last then
  return 0
end
return redis.call('UNLINK', KEYS[1])
