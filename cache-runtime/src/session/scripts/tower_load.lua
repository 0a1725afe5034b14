-- Reads a session of the crate `tower-sessions`.
--
-- KEYS[1]  the session, `<prefix>session:{<tag>}:<sid>`
-- Answers  its record, or nothing if there is none
--
-- A single command, so it is atomic by itself. A value that is not a string is returned as an empty record: the caller
-- has the key and reports that it was tampered with.
local record = redis.pcall('GET', KEYS[1])
if type(record) == 'table' and string.find(record.err, 'WRONGTYPE', 1, true) then
  return ''
end
-- Any other error is passed on, with its line: it does not mean that there is no session.
return type(record) == 'table' and redis.call('GET', KEYS[1]) or record
