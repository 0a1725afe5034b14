-- Ends sessions of a user.
--
-- ARGV[3]  `one` for the session that is named, `others` for all but it
-- ARGV[4]  its name; empty for nobody's
-- ARGV[5]  empty; or a time: what began later goes on
-- Answers  the time, and how many were alive
--
-- Atomic, so that a login at the same moment is either before and ended, or after and alive.
local which, named, time = ARGV[3], follow(ARGV[4]), tonumber(ARGV[5])
settle()
local ended = 0
if which == 'one' then
  ended = remove(named)
else
  for _, sid in ipairs(redis.call('ZRANGE', index, 0, -1)) do
    local head = time and redis.pcall('GETRANGE', base .. sid, 9, 16)
    local is_later = type(head) == 'string' and #head == 8 and struct.unpack('>I8', head) > time
    if sid ~= named and not is_later then
      ended = ended + remove(sid)
    end
  end
end
settle()
return { now, ended }
