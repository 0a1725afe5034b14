-- Removes an entry if its stamp is still the one that was seen, or if what is there is no string.
--
-- KEYS[1]  the entry
-- ARGV[1]  the stamp; of an entry too short to have a whole one, what it has
-- Answers 1 if something was removed, 0 if not.
--
-- Atomic, because what replaced the entry between the comparison and the step would be removed.
local stamp = redis.pcall('GETRANGE', KEYS[1], 8, 15)
if type(stamp) == 'table' and not string.find(stamp.err, 'WRONGTYPE', 1, true) then
  -- What could not be read may be anything.
  return stamp
end
if type(stamp) == 'string' and stamp ~= ARGV[1] then
  return 0
end
return redis.call('UNLINK', KEYS[1])
