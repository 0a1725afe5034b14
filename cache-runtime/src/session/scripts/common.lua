-- The beginning of every transition of a user's sessions.
--
-- KEYS[1]  the sorted set of the user's sessions by their end, `<prefix>sessions:user:{<tag>}`
-- ARGV[1]  the prefix of the keys of the user's sessions, `<prefix>session:{<tag>}:`
-- ARGV[2]  empty; in tests the time
--
-- A session is alive while the set contains it and its key exists. So removing either of them ends the session, and
-- ending all sessions of a user reaches every session. All keys are in the slot of the user's tag. Times are milliseconds
-- by the server's clock. `seal.rs` describes the record of a session.
--
-- An error of a command is never taken for an answer: a missing permission must not look like an ended session. Only a
-- key of another type counts as absent.
local index, base, now = KEYS[1], ARGV[1], tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
end

local function failed(answer, code)
  return type(answer) == 'table' and answer.err and string.find(answer.err, code, 1, true)
end

-- Reads a string; returns nothing if it is missing or of another type.
local function get(key)
  local value = redis.pcall('GET', key)
  if failed(value, 'WRONGTYPE') then
    return false
  end
  -- Calls again without `pcall`, which passes the error on.
  return failed(value, '') and redis.call('GET', key) or value
end

-- Runs a command on the set. If its key has another type, all sessions of the user have ended with the set, and the key is
-- removed.
local function ask(command, ...)
  local answer = redis.pcall(command, index, ...)
  if not failed(answer, '') then
    return answer
  end
  if failed(answer, 'WRONGTYPE') then
    redis.call('DEL', index)
  end
  if failed(answer, "can't run this command") then
    -- Redis 7 reports only the line, which is the same for all commands.
    error({ err = answer.err .. ': ' .. command })
  end
  return redis.call(command, index, ...)
end

-- Returns a session's record, its end, and its latest possible end unless the record is too short to contain it; or
-- nothing. A session that has ended is removed. The end in the set counts only up to the end in the record, which is
-- proven.
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

-- Stores a session until its end.
local function keep(sid, ends, record)
  redis.call('SET', base .. sid, record, 'PXAT', ends)
  redis.call('ZADD', index, ends, sid)
end

local function remove(sid)
  redis.call('ZREM', index, sid)
  return redis.call('DEL', base .. sid)
end

-- Runs the commands of `remove` and `keep` in forms that change nothing, before a transition changes anything: if one of
-- them is not allowed, the transition fails as a whole. Commands that need memory come first, because Redis refuses them
-- for lack of memory only until a script has written.
local function may_keep()
  redis.call('SET', base, '', 'XX', 'PX', 1)
  ask('ZADD', 'XX', 0, '')
  ask('ZCARD')
end
local function may_remove()
  ask('ZREM', '')
  redis.call('DEL', base)
end

-- Reads and stores a name that is kept until a time.
local function named(key)
  local value = get(key)
  if value and #value >= 9 and struct.unpack('>I8', value) > now then
    return string.sub(value, 9)
  end
end
local function name(key, sid, known)
  redis.call('SET', key, struct.pack('>I8', known) .. sid, 'PXAT', known)
end

-- Returns the current name of a session that was renamed within the last minute, any number of times. A client that ends
-- it under an old name sent that request before it got the new name. Each old name leads to the first name, and that to
-- the current name.
local function follow(sid)
  local first = named(base .. sid .. ':moved')
  if not first then
    return sid
  end
  return named(base .. first .. ':now') or first
end

-- Returns the expiry of a set from the end of its last session: in whole seconds, so that it need not change with every use.
local function set_ends(ends)
  return math.ceil(ends / 1000) * 1000
end

-- Removes ended sessions, and expires the set with its last session. An end beyond all valid times is skipped.
local function settle()
  ask('ZREMRANGEBYSCORE', '-inf', now)
  local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')
  local ends = tonumber(last[2] or 0)
  -- Also runs for a set without sessions, so that a missing permission is noticed before a session begins.
  if ends < 2 ^ 53 then
    redis.call('PEXPIREAT', index, set_ends(ends))
  end
end

