-- What every transition of a user's sessions begins with.
--
-- KEYS[1]  the sorted set of the user's sessions by their end, `<prefix>sessions:user:{<tag>}`
-- ARGV[1]  what the keys of the user's sessions begin with, `<prefix>session:{<tag>}:`
-- ARGV[2]  empty; in tests the time
--
-- A session is alive while the set has it and its key is there: so an operator, or Redis short of memory, who removes either of them
-- ends it, and nobody who ends all sessions of a user can miss one. All keys are in the slot of the user's tag. Times are
-- milliseconds, by the server's clock; what a session looks like, `seal.rs` says.
--
-- An error of a command is never taken for an answer: a right that is missing must not look like a session that is gone. Only something of
-- another type at a key of ours counts as absent.
local index, base, now = KEYS[1], ARGV[1], tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
end

local function failed(answer, code)
  return type(answer) == 'table' and answer.err and string.find(answer.err, code, 1, true)
end

-- Reads a string; nothing if there is none, or something else.
local function get(key)
  local value = redis.pcall('GET', key)
  if failed(value, 'WRONGTYPE') then
    return false
  end
  -- Once more as a call that passes its error on.
  return failed(value, '') and redis.call('GET', key) or value
end

-- Asks the set. If something else stands at its key, the user's sessions have ended with the set, and it is in nobody's way.
local function ask(command, ...)
  local answer = redis.pcall(command, index, ...)
  if not failed(answer, '') then
    return answer
  end
  if failed(answer, 'WRONGTYPE') then
    redis.call('DEL', index)
  end
  return redis.call(command, index, ...)
end

-- A session's record, its end, and the latest possible one unless the record is too short to tell; or nothing. One that has ended is
-- removed on the way. The set's word for the end counts no further than the record's, which is proven.
local function find(sid)
  local ends = tonumber(ask('ZSCORE', sid))
  local record = ends and ends > now and get(base .. sid)
  if record then
    local absolute = #record >= 41 and struct.unpack('>I8', record, 18) or nil
    ends = math.min(ends, absolute or ends)
    if ends > now then
      return record, ends, absolute
    end
  end
  redis.call('DEL', base .. sid)
  redis.call('ZREM', index, sid)
end

-- Stores a session until then.
local function keep(sid, ends, record)
  redis.call('SET', base .. sid, record, 'PXAT', ends)
  redis.call('ZADD', index, ends, sid)
end

local function remove(sid)
  redis.call('ZREM', index, sid)
  return redis.call('DEL', base .. sid)
end

-- Runs the commands of `remove` and `keep` in forms that change nothing, before a transition changes anything: where one of them is not
-- allowed, the transition fails as a whole. What needs memory comes first, since Redis refuses for lack of it only until a script has
-- written.
local function may_keep()
  redis.call('SET', base, '', 'XX', 'PX', 1)
  ask('ZADD', 'XX', 0, '')
  ask('ZCARD')
end
local function may_remove()
  ask('ZREM', '')
  redis.call('DEL', base)
end

-- A name that is worth knowing until some time, and what is stored for it.
local function named(key)
  local value = get(key)
  if value and #value >= 9 and struct.unpack('>I8', value) > now then
    return string.sub(value, 9)
  end
end
local function name(key, sid, known)
  redis.call('SET', key, struct.pack('>I8', known) .. sid, 'PXAT', known)
end

-- The name under which a session goes on that was renamed within the last minute, however often. Whoever ends it under an old one asked
-- for that before the new one reached the client. Each old name leads to the first one, and that to the current one.
local function follow(sid)
  local first = named(base .. sid .. ':moved')
  if not first then
    return sid
  end
  return named(base .. first .. ':now') or first
end

-- The end of a set whose last session ends then: in whole seconds, so that it need not be moved with every use.
local function set_ends(ends)
  return math.ceil(ends / 1000) * 1000
end

-- Forgets what has ended, and lets the set end with its last session. An end that somebody has moved beyond all times is passed over.
local function settle()
  ask('ZREMRANGEBYSCORE', '-inf', now)
  local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')
  local ends = tonumber(last[2] or 0)
  -- Also asked for a set without sessions, so that a right that is missing shows before one begins.
  if ends < 2 ^ 53 then
    redis.call('PEXPIREAT', index, set_ends(ends))
  end
end

