-- What every transition of a user's sessions begins with.
--
-- KEYS[1]  the sorted set of the user's sessions by their end, `<prefix>sessions:user:{<tag>}`
-- ARGV[1]  what the keys of the user's sessions begin with, `<prefix>session:{<tag>}:`
-- ARGV[2]  empty; in tests the time
--
-- A session is alive while the set has it and its key is there: so an operator, or Redis short of memory, who removes either of them
-- ends it, and nobody who ends all sessions of a user can miss one. All keys are in the slot of the user's tag. Times are
-- milliseconds, by the server's clock; what a session looks like, `seal.rs` says.
local index, base, now = KEYS[1], ARGV[1], tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
end

local function failed(answer, code)
  return type(answer) == 'table' and answer.err and string.find(answer.err, code, 1, true)
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
  local record = ends and ends > now and redis.pcall('GET', base .. sid)
  if type(record) == 'string' then
    local absolute = #record >= 41 and struct.unpack('>I8', record, 18) or nil
    ends = math.min(ends, absolute or ends)
    if ends > now then
      return record, ends, absolute
    end
  end
  redis.call('DEL', base .. sid)
  redis.call('ZREM', index, sid)
end

-- Keeps a session until then.
local function keep(sid, ends)
  redis.call('PEXPIREAT', base .. sid, ends)
  redis.call('ZADD', index, ends, sid)
end

local function remove(sid)
  redis.call('ZREM', index, sid)
  return redis.call('DEL', base .. sid)
end

-- The name under which a session goes on that was renamed within the last minute. Whoever ends it under the old one asked for that
-- before the new one reached the client.
local function follow(sid)
  for _ = 1, 16 do
    local moved = redis.pcall('GET', base .. sid .. ':moved')
    if type(moved) ~= 'string' or #moved < 9 or struct.unpack('>I8', moved) <= now then
      break
    end
    sid = string.sub(moved, 9)
  end
  return sid
end

-- The end of a set whose last session ends then: in whole seconds, so that it need not be moved with every use.
local function set_ends(ends)
  return math.ceil(ends / 1000) * 1000
end

-- Forgets what has ended, and lets the set end with its last session. An end that somebody has moved beyond all times is passed over.
local function settle()
  ask('ZREMRANGEBYSCORE', '-inf', now)
  local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')
  if last[2] then
    redis.pcall('PEXPIREAT', index, set_ends(tonumber(last[2])))
  end
end

