-- Begins a session, in place of another one of the same user if there is one.
--
-- ARGV[3]  the session
-- ARGV[4]  its life
-- ARGV[5]  how many sessions a user may have
-- ARGV[6]  when whoever asks believes that it is now, which is in the record already
-- ARGV[7]  its latest possible end, by the same clock
-- ARGV[8]  the session that it replaces, or empty
-- ARGV[9]  its record
-- Answers  the time, and the session's end; or 0 if the belief is wrong by more than a second; and how many sessions had to make room
--
-- Atomic, because two logins at the same moment must not both take the last place, and because a session that is replaced must not
-- outlive that.
local sid, created, absolute = ARGV[3], tonumber(ARGV[6]), tonumber(ARGV[7])
if created > now or created <= now - 1000 then
  return { now, 0, 0 }
end
-- First of all: if Redis refuses any of it, for lack of memory for example, nothing shall have made room.
may_keep()
may_remove()
settle()
if ARGV[8] ~= '' then
  local moved = follow(ARGV[8])
  remove(ARGV[8])
  remove(moved)
end
local ends, ended = math.min(now + tonumber(ARGV[4]), absolute), 0
local surplus = redis.call('ZCARD', index) + 1 - tonumber(ARGV[5])
if surplus > 0 then
  for _, soonest in ipairs(redis.call('ZRANGE', index, 0, surplus - 1)) do
    ended = ended + remove(soonest)
  end
end
keep(sid, ends, ARGV[9])
settle()
return { now, ends, ended }
