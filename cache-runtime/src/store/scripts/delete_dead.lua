-- Removes a claim that the store would never expire, if it still has a stamp.
--
-- KEYS[1]  the claim
-- ARGV[1]  the stamp
-- ARGV[2]  the offset of the claim's own end: milliseconds since 1970, eight little-endian bytes
-- ARGV[3]  by how many milliseconds the clock of its writer may differ from the server's
-- Answers 1 if it was removed; 0 if it is another claim, is gone, or is not dead; WRONGTYPE if it is not a string.
--
-- Atomic, because an entry that replaced the claim between the comparison and the removal would be removed. A claim
-- without an expiry, or with a later expiry than its own end, was copied or changed by a tool, and would block its key
-- forever.
local ends = tonumber(ARGV[2])
local head = redis.call('GETRANGE', KEYS[1], 8, ends + 7)
if string.len(head) < ends or string.sub(head, 1, 8) ~= ARGV[1] then
  return 0
end
local ttl = redis.call('PTTL', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- In two halves, because `struct` uses the server's word size, which may be four bytes.
local low, high = struct.unpack('<I4I4', head, ends - 7)
local last = high * 2^32 + low + ARGV[3]
if ttl >= 0 and now < last and now + ttl <= last then
  return 0
end
return redis.call('UNLINK', KEYS[1])
