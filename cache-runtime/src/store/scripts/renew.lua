-- Prolongs an entry if it still bears a stamp.
--
-- KEYS[1]  the entry
-- ARGV[1]  the stamp
-- ARGV[2]  the new life in milliseconds
-- Answers 1 if the entry was prolonged, 0 if it is another one or gone; WRONGTYPE if it is no string.
--
-- Atomic, because an eviction between the comparison and the step would see the life of a newer entry changed. Only the
-- stamp's bytes are read: a whole value costs more to copy into Lua than all else here.
if redis.call('GETRANGE', KEYS[1], 8, 15) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
