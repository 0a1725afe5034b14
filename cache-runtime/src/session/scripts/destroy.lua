-- Ends sessions of a user.
--
-- ARGV[3]  `one` for the named session, `others` for all sessions except it
-- ARGV[4]  the name; may be empty with `others`
-- ARGV[5]  empty, or a time: sessions that began later are kept
-- Answers  the time, and how many sessions were alive
--
-- Atomic, so that a concurrent login is either before it and ended, or after it and alive.
local which, sent, time = ARGV[3], ARGV[4], tonumber(ARGV[5])
local moved = follow(sent)
settle()
may_remove()
local ended = 0
if which == 'one' then
  -- Both names are ended: a client that writes into a mark cannot keep a session from being ended by its name.
  ended = remove(sent)
  if moved ~= sent then
    ended = ended + remove(moved)
  end
else
  for _, sid in ipairs(redis.call('ZRANGE', index, 0, -1)) do
    local record = time and get(base .. sid)
    local is_later = record and #record >= 17 and struct.unpack('>I8', record, 10) > time
    if sid ~= sent and sid ~= moved and not is_later then
      ended = ended + remove(sid)
    end
  end
end
settle()
return { now, ended }
