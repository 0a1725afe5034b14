-- Puts a fence in the place of whatever entry is there.
--
-- KEYS[1]  the entry
-- ARGV[1]  the fence
-- ARGV[2]  its life in milliseconds
-- ARGV[3]  how many bytes tell that an entry is a fence: the magic bytes and the kind, with which ARGV[1] begins too
-- ARGV[4]  where in a fence its count is, four little-endian bytes
-- ARGV[5]  where in a fence it says when it ends: milliseconds since 1970, eight little-endian bytes
-- ARGV[6]  by how many milliseconds the clock that it was made by may differ from the server's
-- Answers the count that the new fence bears: one, or one more than that of the fence it replaced; WRONGTYPE if what is
-- there is no string.
--
-- Atomic, because two puts at the same moment must not both believe that they are alone. A fence without an expiry, or with a later
-- one than it says, is dead, and nobody stands behind it.
local head, at, ends = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local count = 1
local old = redis.call('GETRANGE', KEYS[1], 0, at + 3)
if string.len(old) == at + 4 and string.sub(old, 1, head) == string.sub(ARGV[1], 1, head) then
  local ttl = redis.call('PTTL', KEYS[1])
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  -- In two halves, because `struct` counts in words, and some servers have words of four bytes.
  local low, high = struct.unpack('<I4I4', old, ends + 1)
  local last = high * 2^32 + low + ARGV[6]
  if ttl >= 0 and now < last and now + ttl <= last then
    count = math.min(struct.unpack('<I4', old, at + 1) + 1, 2^32 - 1)
  end
end
local fence = string.sub(ARGV[1], 1, at) .. struct.pack('<I4', count) .. string.sub(ARGV[1], at + 5)
redis.call('SET', KEYS[1], fence, 'PX', ARGV[2])
return count
