-- Replaces any entry with a fence.
--
-- KEYS[1]  the entry
-- ARGV[1]  the fence
-- ARGV[2]  its TTL in milliseconds
-- ARGV[3]  the length of the bytes that mark an entry as a fence: the magic bytes and the kind, with which ARGV[1] also begins
-- ARGV[4]  the offset of the count in a fence, four little-endian bytes
-- ARGV[5]  the offset of the fence's own end: milliseconds since 1970, eight little-endian bytes
-- ARGV[6]  by how many milliseconds the clock of its writer may differ from the server's
-- Answers the count of the new fence: 1, or 1 more than the count of the fence that it replaced; WRONGTYPE if the old
-- value is not a string.
--
-- Atomic, because two concurrent puts must not both find that they are alone. A fence without an expiry, or with a later
-- expiry than its own end, is dead: no put holds it.
local head, at, ends = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local count = 1
local old = redis.call('GETRANGE', KEYS[1], 0, at + 3)
if string.len(old) == at + 4 and string.sub(old, 1, head) == string.sub(ARGV[1], 1, head) then
  local ttl = redis.call('PTTL', KEYS[1])
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  -- In two halves, because `struct` uses the server's word size, which may be four bytes.
  local low, high = struct.unpack('<I4I4', old, ends + 1)
  local last = high * 2^32 + low + ARGV[6]
  if ttl >= 0 and now < last and now + ttl <= last then
    count = math.min(struct.unpack('<I4', old, at + 1) + 1, 2^32 - 1)
  end
end
local fence = string.sub(ARGV[1], 1, at) .. struct.pack('<I4', count) .. string.sub(ARGV[1], at + 5)
redis.call('SET', KEYS[1], fence, 'PX', ARGV[2])
return count
