-- Replaces an entry if it still bears a stamp: the fill of a load, and the end of a put whose fence stands.
--
-- KEYS[1]  the entry
-- ARGV[1]  the stamp
-- ARGV[2]  the new entry
-- ARGV[3]  its life in milliseconds
-- Answers 1 if it was replaced, 0 if there is none, -1 if there is another; WRONGTYPE if it is no string.
--
-- Atomic, because an eviction between the comparison and the step would be undone. The new entry passes through Lua, which
-- for 20 KB costs 44 us of the server's time against 11.5 for a SET; for 2 KB it is 9 against 2.5.
local stamp = redis.call('GETRANGE', KEYS[1], 8, 15)
if stamp ~= ARGV[1] then
  return redis.call('EXISTS', KEYS[1]) == 1 and -1 or 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
