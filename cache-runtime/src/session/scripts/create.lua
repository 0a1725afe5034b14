-- Creates a session. It can replace another session of the same user.
--
-- ARGV[3]  the session
-- ARGV[4]  its TTL
-- ARGV[5]  how many sessions a user may have
-- ARGV[6]  the time that the caller assumes, which is already in the record
-- ARGV[7]  its latest possible end, by the same clock
-- ARGV[8]  the session that it replaces, or empty
-- ARGV[9]  its record
-- Answers  the time, and the session's end, or 0 if the caller's time is wrong by more than a second; and how many
--          sessions were removed
--
-- Atomic, because two logins at the same moment must not both take the last place, and because a replaced session must
-- not outlive its replacement.
local sid, created, absolute = ARGV[3], tonumber(ARGV[6]), tonumber(ARGV[7])
if created > now or created <= now - 1000 then
  return { now, 0, 0 }
end
-- This runs first: if Redis refuses any of it, for example for lack of memory, no session may have been removed.
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
