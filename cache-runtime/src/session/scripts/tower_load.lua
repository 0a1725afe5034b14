-- Reads a session of the crate `tower-sessions`.
--
-- KEYS[1]  the session, `<prefix>session:{<tag>}:<sid>`
-- Answers  its record, or nothing if there is none
--
-- One command, so atomic by itself. What is no text is answered as an empty record: who asks has the key, and will say that it was
-- tampered with.
local record = redis.pcall('GET', KEYS[1])
if type(record) == 'table' and string.find(record.err, 'WRONGTYPE', 1, true) then
  return ''
end
-- Another error is passed on: it does not say that there is no session.
return record
