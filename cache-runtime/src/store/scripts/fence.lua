-- Puts a fence in the place of whatever entry is there.
--
-- KEYS[1]  the entry
-- ARGV[1]  the fence
-- ARGV[2]  its life in milliseconds
-- ARGV[3]  how many bytes tell that an entry is a fence: the magic bytes and the kind, with which ARGV[1] begins too
-- ARGV[4]  where in a fence its count is, four little-endian bytes
-- Answers the count that the new fence bears: one, or one more than that of the fence it replaced; WRONGTYPE if what is
-- there is no string.
--
-- Atomic, because two puts at the same moment must not both believe that they are alone.
local head, at = tonumber(ARGV[3]), tonumber(ARGV[4])
local count = 1
if redis.call('GETRANGE', KEYS[1], 0, head - 1) == string.sub(ARGV[1], 1, head) then
  local old = redis.call('GETRANGE', KEYS[1], at, at + 3)
  if string.len(old) == 4 then
    count = struct.unpack('<I4', old) + 1
  end
end
local fence = string.sub(ARGV[1], 1, at) .. struct.pack('<I4', count) .. string.sub(ARGV[1], at + 5)
redis.call('SET', KEYS[1], fence, 'PX', ARGV[2])
return count
