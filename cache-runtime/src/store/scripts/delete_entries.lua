-- Removes the keys that hold an entry of a given cache.
--
-- KEYS     the keys that a scan found
-- ARGV[1]  the magic bytes with which every entry begins
-- ARGV[2]  the first format whose entries name their cache; older entries are treated as this cache's own
-- ARGV[3]  the offset of the length of the cache's prefix in an entry, two little-endian bytes
-- ARGV[4]  the length of the cache's prefix
-- Answers for each key: 1 removed; 0 missing or not an entry; -n an entry of a cache whose prefix has n bytes.
--
-- Atomic, because the value of a key may change between the check and the removal.
local magic, first, at, prefix = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local answers = {}
for index, key in ipairs(KEYS) do
  local head = redis.pcall('GETRANGE', key, 0, at + 1)
  local answer = 0
  if type(head) == 'table' then
    -- A value that is not a string is not an entry.
    if not string.find(head.err, 'WRONGTYPE', 1, true) then
      -- Calls again without `pcall`, which passes the error on with its line.
      redis.call('GETRANGE', key, 0, at + 1)
    end
  elseif string.len(head) == at + 2 and string.sub(head, 1, string.len(magic)) == magic then
    local owner = prefix
    if string.byte(head, string.len(magic) + 1) >= first then
      owner = struct.unpack('<I2', head, at + 1)
    end
    if owner == prefix then
      answer = redis.call('UNLINK', key)
    else
      answer = -owner
    end
  end
  answers[index] = answer
end
return answers
