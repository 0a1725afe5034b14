-- Removes a value that is too long.
--
-- KEYS[1]  the key
-- ARGV[1]  the most bytes that a value may have
-- Answers  the length of the removed value, or 0
--
-- Atomic, so that a value that replaces it at the same time stays.
local length = redis.call('STRLEN', KEYS[1])
if length <= tonumber(ARGV[1]) then
  return 0
end
redis.call('UNLINK', KEYS[1])
return length
