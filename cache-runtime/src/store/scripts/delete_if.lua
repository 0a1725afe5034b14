-- Removes an entry if it still has the stamp that was seen, or if the value is not a string.
--
-- KEYS[1]  the entry
-- ARGV[1]  the stamp; if the entry is too short for a whole stamp, the part that it has
-- Answers 1 if something was removed, 0 if not.
--
-- Atomic, because an entry that replaced it between the comparison and the removal would be removed.
local stamp = redis.pcall('GETRANGE', KEYS[1], 8, 15)
if type(stamp) == 'table' and not string.find(stamp.err, 'WRONGTYPE', 1, true) then
  -- A value that could not be read may be anything. Calls again without `pcall`, which passes the error on with its line.
  redis.call('GETRANGE', KEYS[1], 8, 15)
end
if type(stamp) == 'string' and stamp ~= ARGV[1] then
  return 0
end
return redis.call('UNLINK', KEYS[1])
