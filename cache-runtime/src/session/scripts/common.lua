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

-- A session's record and its end, or nothing. One that has ended is removed on the way.
local function find(sid)
  local ends = tonumber(redis.call('ZSCORE', index, sid))
  local record = ends and ends > now and redis.pcall('GET', base .. sid)
  if type(record) == 'string' then
    return record, ends
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

-- Forgets what has ended, and lets the set end with its last session.
local function settle()
  redis.call('ZREMRANGEBYSCORE', index, '-inf', now)
  local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')
  if last[2] then
    redis.call('PEXPIREAT', index, last[2])
  end
end

