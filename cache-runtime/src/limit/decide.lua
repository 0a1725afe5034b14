-- Decides one call of one client under one or more policies: all of them charge the call, or none does. Or several equal calls:
-- they get the answers that they would get one after another at the same time.
--
-- KEYS     the state of the client under each policy, all in one slot
-- ARGV     for each key its policy, packed as `<Bdddddd`: algorithm, limit, window, cost, and the penalties: the first block, the
--          longest block, and the time after which a strike is forgiven; a first block of 0 means no penalties
--          then, optionally, the operation: `take` (the default), `peek`, `refund` (the cost is the number of units, newest
--          first) or `block` (the cost is the duration; 0 ends a block)
--          then, optionally, the number of calls, for `take`
--          then, only in tests, the time
-- Answers  for each key, packed as `<Bdddd`:
--          - a verdict: 0 fits, 1 over the limit, 2 blocked
--          - the usage, as two numbers: the units and 0; for a Gcra the milliseconds until it is empty, and parts of one
--          - when to retry, and when more units are free
--          If 16 is added to the verdict, the strikes follow as `<Bddd`: their number, the time since the last one, the rest of
--          the block, and the length of the whole block.
--          For several calls: how many are charged, as `<I4`, then if there are any, the answers for the last of them, then if
--          others are rejected, the answers for the first of those. The caller derives the answers in between: each charged
--          call adds the same, and after the first rejection nothing changes, except that a block may have begun.
--
-- Atomic, because two concurrent calls must not both get the last unit, and because all policies of a call are charged together
-- or not at all. A rejection writes nothing except a strike. The clock is that of the server, so the callers need not agree on the
-- time. Times are milliseconds. All numbers are whole and below 2^53. A state that cannot be read counts as absent.
--
-- State: `<Bd` the algorithm and the time at which the key expires. If 16 is added to the algorithm, `<Bddd` follows: the number of
-- strikes, the time of the last one, the end of the block, and its length. Then, by algorithm:
--   1 log      `<d` a start time, then for each unit as `<I4` how much later it was used, oldest first; the first units may
--              already have left the window
--   2 buckets  `<dd` the width and the index of the first bucket, then the units in each bucket as `<I4`; the first has at least 1
--   3 Gcra     `<ddd` the time at which it is empty, as milliseconds and a numerator, and the denominator, which is the limit
--
-- Measured costs:
-- - TIME takes as long as GET and PTTL together, so the script derives the time from the TTL of the key.
-- - A list in the answer takes twice as long as a packed string.
-- - APPEND takes half as long as SET. Setting an expiry takes as long as a SET, so the expiry is set to two windows ahead and not
--   changed for one window.
local spread = unpack
local unpack, pack = struct.unpack, struct.pack
local how, calls, given = ARGV[#KEYS + 1] or 'take', tonumber(ARGV[#KEYS + 2] or 1), ARGV[#KEYS + 3]

-- The fast path of the usual call: one unit of a single log, without penalties, for a client that is new or whose key outlives
-- the window. It does the same as `look_log` and `add_log` in half the time, because creating functions and passing values take
-- most of their time. Any other call continues below.
if #KEYS == 1 and how == 'take' and calls == 1 then
  local algorithm, limit, window, cost, first_block = unpack('<Bdddd', ARGV[1])
  local state = algorithm == 1 and cost == 1 and redis.pcall('GET', KEYS[1])
  if state == false and algorithm == 1 and cost == 1 then
    local now = given and tonumber(given)
    if not now then
      local time = redis.call('TIME')
      now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
    end
    local ends = now + 2 * window
    redis.call('SET', KEYS[1], pack('<BddI4', 1, ends, now, 0), given and 'PX' or 'PXAT', given and 3600000 or ends)
    return pack('<Bdddd', 0, 1, 0, 0, window)
  elseif type(state) == 'string' and #state > 17 and #state % 4 == 1 then
    local kind, ends, origin = unpack('<Bdd', state)
    local left = not given and kind == 1 and redis.call('PTTL', KEYS[1]) or -1
    local now = given and tonumber(given) or ends - left
    local count, newest = (#state - 17) / 4, origin + unpack('<I4', state, #state - 3)
    -- Also false for a value that is not a number.
    if kind == 1 and (given or left >= 0) and ends % 1 == 0 and ends <= 2 ^ 53 and newest % 1 == 0 and newest <= now then
      local edge, place = now - window - origin, count - limit + 1
      local leaves = place >= 1 and unpack('<I4', state, 14 + 4 * place) or edge
      if leaves > edge then
        if first_block == 0 then
          return pack('<Bdddd', 1, limit, 0, leaves - edge, leaves - edge)
        end
      elseif ends >= now + window and newest - origin > edge and now - origin < 2 ^ 32 then
        local first, last = 1, count
        local oldest = unpack('<I4', state, 18)
        while oldest <= edge and first < last do
          local middle = (first + last - (first + last) % 2) / 2
          if unpack('<I4', state, 14 + 4 * middle) > edge then
            last = middle
          else
            first = middle + 1
          end
        end
        if (first - 1) * 4 < limit + 16 then
          redis.call('APPEND', KEYS[1], pack('<I4', now - origin))
          if first > 1 then
            oldest = unpack('<I4', state, 14 + 4 * first)
          end
          return pack('<Bdddd', 0, count - first + 2, 0, 0, oldest - edge)
        end
      end
    end
  end
end

local floor, max, min, sub, rep = math.floor, math.max, math.min, string.sub, string.rep
-- The longest block that can be set is 31 days.
local PARTS, MOST_STRIKES, MARK, LONGEST_BLOCK = 60, 32, 16, 2678400000
local now = given and tonumber(given)

-- Each `look` returns: whether the call fits, the usage (two numbers), when to retry, when more units are free, and two numbers
-- for the `add` of the same algorithm. `at` is the offset of the algorithm's part of the state, if there is a state.

local function look_log(state, at, limit, window, cost)
  local length = #state - at - 7
  if length < 4 or length % 4 ~= 0 then
    return true, 0, 0, 0, 0
  end
  local count, origin = length / 4, unpack('<d', state, at)
  at = at + 4
  local newest = origin + unpack('<I4', state, at + 4 * count)
  if newest % 1 ~= 0 or newest > now + window then
    return true, 0, 0, 0, 0
  end
-- Units that were used at the edge or before it have left the window. In the window, time does not go back. Waits are by the
  -- clock.
  local from = now - window - origin
  local edge = max(from, newest - window - origin)
  local place = count - limit + cost
  if cost == 1 and place >= 1 then
    local stamp = unpack('<I4', state, at + 4 * place)
    if stamp > edge then
      return false, limit, 0, stamp - from, stamp - from
    end
  end
  local first, last = 1, count + 1
  if unpack('<I4', state, at + 4) <= edge then
    while first < last do
      local middle = floor((first + last) / 2)
      if unpack('<I4', state, at + 4 * middle) > edge then
        last = middle
      else
        first = middle + 1
      end
    end
  end
  local used = count - first + 1
  if used == 0 then
    return true, 0, 0, 0, 0
  end
  local more = unpack('<I4', state, at + 4 * max(first, count - limit + 1)) - from
  if place < first then
    return true, used, 0, 0, more, first, newest
  end
  return false, min(used, limit), 0, unpack('<I4', state, at + 4 * place) - from, more
end

local function add_log(key, state, at, lasts, used, limit, cost, first, newest)
  local stamp = max(now, newest or 0)
  local origin = stamp
  if used > 0 then
    origin = unpack('<d', state, at)
  end
  if lasts and used > 0 and stamp - origin < 2 ^ 32 and (first - 1) * 4 < limit + 16 then
    redis.call('APPEND', key, rep(pack('<I4', stamp - origin), cost))
    return
  end
  local kept = ''
  if used > 0 then
    kept = sub(state, at + 4 + 4 * first)
    if stamp - origin >= 2 ^ 32 then
      local moved, by = {}, unpack('<I4', kept)
      for i = 1, used do
        moved[i] = pack('<I4', unpack('<I4', kept, 4 * i - 3) - by)
      end
      kept, origin = table.concat(moved), origin + by
    end
  end
  return pack('<d', origin) .. kept .. rep(pack('<I4', stamp - origin), cost)
end

local function look_buckets(state, at, limit, window, cost)
  local width = math.ceil(window / PARTS)
  local count = (#state - at - 15) / 4
  if count < 1 or count % 1 ~= 0 then
    return true, 0, 0, 0, 0
  end
  local known, index = unpack('<dd', state, at)
  local current = floor(now / width)
  if known ~= width or index % 1 ~= 0 or index + count - 1 > current + PARTS then
    return true, 0, 0, 0, 0
  end
  at = at + 12
  local first, sum = 1, 0
  for i = 1, count do
    local units = unpack('<I4', state, at + 4 * i)
    if index + i - 1 + PARTS < current or (sum == 0 and units == 0) then
      first = i + 1
    else
      sum = sum + units
    end
  end
  if sum == 0 then
    return true, 0, 0, 0, 0
  end
-- Returns the time at which enough units are free.
  local function leaves(free)
    local kept = sum
    for i = first, count do
      kept = kept - unpack('<I4', state, at + 4 * i)
      if kept + free <= limit then
        return (index + i + PARTS) * width - now
      end
    end
    return 0
  end
  local more = leaves(max(1, limit + 1 - sum))
  if sum + cost <= limit then
    return true, sum, 0, 0, more, first, index
  end
  return false, min(sum, limit), 0, leaves(cost), more
end

local function add_buckets(state, at, used, window, cost, first, index)
  local width = math.ceil(window / PARTS)
  local current = floor(now / width)
  if used == 0 then
    return pack('<dd', width, current) .. pack('<I4', cost)
  end
  local last = unpack('<I4', state, #state - 3)
  local missing = current - index - (#state - at - 15) / 4 + 1
  local kept = sub(state, at + 12 + 4 * first)
  if missing <= 0 then
    kept = sub(kept, 1, -5) .. pack('<I4', last + cost)
  else
    kept = kept .. rep(pack('<I4', 0), missing - 1) .. pack('<I4', cost)
  end
  return pack('<dd', width, index + first - 1) .. kept
end

-- Returns the time at which the Gcra is empty after these additional units, as milliseconds and a numerator.
local function filled(empty, parts, limit, window, cost)
  parts = parts + cost * window
  local rest = parts % limit
  return empty + (parts - rest) / limit, rest
end

local function look_gcra(state, at, limit, window, cost)
  local empty, parts = now, 0
  if #state == at + 23 then
    local found, rest, of = unpack('<ddd', state, at)
    if found % 1 == 0 and found >= now and found <= now + 2 * window then
      empty, parts = found, rest
      if of ~= limit or not (rest >= 0 and rest < limit and rest % 1 == 0) then
        empty, parts = found + (rest > 0 and 1 or 0), 0
      end
    end
  end
  local full = now + window
  local remaining = max(0, floor(((full - empty) * limit - parts) / window))
  local more = 0
  if remaining < limit then
    local later, rest = filled(empty, parts, limit, window, remaining + 1)
    more = later + (rest > 0 and 1 or 0) - full
  end
  local after, rest = filled(empty, parts, limit, window, cost)
  if after < full or (after == full and rest == 0) then
    return true, empty - now, parts, 0, more, after, rest
  end
  return false, empty - now, parts, after + (rest > 0 and 1 or 0) - full, more
end

-- Reads a state as far as possible and judges the call by the policy. Returns everything that `settle` needs.
local function look(key, rule)
  local algorithm, limit, window, cost = unpack('<Bddd', rule)
  if how == 'block' or how == 'refund' then
    cost = 0
  end
  local state = redis.pcall('GET', key)
  if type(state) == 'table' and not string.find(state.err, 'WRONGTYPE', 1, true) then
    -- Calls again without `pcall`, which passes the error on: a missing permission must not grant a new quota.
    redis.call('GET', key)
  end
  local at, ends, strikes, struck, till, block, dirty = 10, 0, 0, 0, 0, 0, true
  if type(state) == 'string' and #state >= 9 then
    local kind
    kind, ends = unpack('<Bd', state)
    if kind >= MARK and #state >= 34 then
      kind, at = kind - MARK, 35
      strikes, struck, till, block = unpack('<Bddd', state, 10)
    end
    dirty = kind ~= algorithm
    if dirty then
      at = #state + 1
    end
    if kind < 1 or kind > 3 or ends % 1 ~= 0 or ends < 0 or ends > 2 ^ 53 then
      state = ''
    elseif not now then
      local left = redis.call('PTTL', key)
      if left >= 0 then
        now = ends - left
      end
    end
  else
    state = ''
  end
  if state == '' then
    at, ends, strikes, struck, till, block, dirty = 1, 0, 0, 0, 0, 0, true
  end
  if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000 + floor(time[2] / 1000)
  end
-- A time too far in the future was set before the clock went back.
  if till ~= 0 and not (till > now and till - now <= block + window and block <= LONGEST_BLOCK) then
    till, block, dirty = 0, 0, true
  end
  if strikes > 0 then
    local _, _, forgive = unpack('<ddd', rule, 26)
    if not (struck + forgive * strikes > now and struck <= now + window) then
      strikes, struck, dirty = 0, 0, true
    end
  else
    struck = 0
  end
  local verdict, fits, used, parts, retry, more, a, b
  if till > 0 then
    verdict, used, parts, retry, more = 2, 0, 0, till - now, till - now
  else
    if algorithm == 1 then
      fits, used, parts, retry, more, a, b = look_log(state, at, limit, window, cost)
    elseif algorithm == 2 then
      fits, used, parts, retry, more, a, b = look_buckets(state, at, limit, window, cost)
    else
      fits, used, parts, retry, more, a, b = look_gcra(state, at, limit, window, cost)
    end
    verdict = fits and 0 or 1
  end
  return key, rule, verdict, used, parts, retry, more, state, at, ends, strikes, struck, till, block, dirty, a, b
end
local FOUND = 17

local function write(key, rule, body, ends, strikes, struck, till, block)
  local algorithm, _, window = unpack('<Bddd', rule)
  local forgive = strikes > 0 and select(3, unpack('<ddd', rule, 26)) or 0
  ends = max(ends, now + window, till, struck + forgive * strikes)
  local head = pack('<Bd', algorithm, ends)
  if strikes > 0 or till > 0 then
    head = pack('<BdBddd', algorithm + MARK, ends, strikes, struck, till, block)
  end
-- In tests the given time is not the time of Redis, so it cannot set the expiry.
  redis.call('SET', key, head .. body, given and 'PX' or 'PXAT', given and 3600000 or ends)
end

-- Refunds the newest units of a state. `a` is the position of the first counting unit, or the index of the first bucket. A block
-- does not change.
local function refund(key, rule, used, parts, state, at, a, b)
  local algorithm, limit, window, cost = unpack('<Bddd', rule)
  local body
  if algorithm == 1 and a then
    body = sub(state, at, at + 7) .. sub(state, at + 4 + 4 * a, #state - 4 * min(cost, used))
  elseif algorithm == 2 and a then
    local kept = {}
    for i = (#state - at - 15) / 4, a, -1 do
      local units = unpack('<I4', state, at + 12 + 4 * i)
      local less = min(cost, units)
      cost = cost - less
      kept[i - a + 1] = pack('<I4', units - less)
    end
    body = pack('<dd', math.ceil(window / PARTS), b + a - 1) .. table.concat(kept)
  elseif algorithm == 3 and used + parts > 0 then
    local left = max(0, used * limit + parts - cost * window)
    body = pack('<ddd', now + floor(left / limit), left % limit, limit)
  end
  if body then
    redis.call('SET', key, sub(state, 1, at - 1) .. body, 'KEEPTTL')
  end
end

-- Charges as many calls as all policies allow, or if there is none counts a strike for a call that this policy rejects. Returns the
-- answer for the last of them.
local function settle(fit, key, rule, verdict, used, parts, retry, more, state, at, ends, strikes, struck, till, block, dirty, a, b)
  local algorithm, limit, window, cost = unpack('<Bddd', rule)
  if how == 'block' then
    till = cost > 0 and now + cost or 0
    block = cost
    if state ~= '' or cost > 0 then
      write(key, rule, sub(state, at), ends, strikes, struck, till, block)
    end
  elseif how == 'refund' then
    if verdict < 2 then
      refund(key, rule, used, parts, state, at, a, b)
    end
  elseif how == 'take' and fit > 0 and cost > 0 then
    local body
    if fit > 1 then
      cost = cost * fit
      if algorithm == 3 then
        a, b = filled(now + used, parts, limit, window, cost)
      end
    end
-- The key outlives the window of this call, so only the usage changes.
    local span = algorithm == 2 and (PARTS + 1) * math.ceil(window / PARTS) or window
    local from = algorithm == 1 and max(now, b or 0) or now
    local lasts = not dirty and ends >= from + span
    if algorithm == 1 then
      body = add_log(key, state, at, lasts, used, limit, cost, a, b)
      more = used > 0 and more or window
      used = used + cost
    elseif algorithm == 2 then
      body = add_buckets(state, at, used, window, cost, a, b)
    else
      body = pack('<ddd', a, b, limit)
    end
    if body and lasts then
      redis.call('SET', key, sub(state, 1, at - 1) .. body, 'KEEPTTL')
    elseif body then
      write(key, rule, body, from + 2 * span, strikes, struck, till, block)
    end
    if algorithm == 2 then
      local _, sum, _, _, next = look_buckets('x' .. body, 2, limit, window, 0)
      used, more = sum, next
    elseif algorithm == 3 then
      used, parts = a - now, b
      local remaining = floor(((window - used) * limit - parts) / window)
      local later, rest = filled(a, b, limit, window, remaining + 1)
      more = later + (rest > 0 and 1 or 0) - now - window
    end
  elseif how == 'take' and verdict == 1 then
    local first, longest, forgive = unpack('<ddd', rule, 26)
    if first > 0 and not (strikes > 0 and now < struck + window) then
      strikes = min(max(strikes - floor(max(now - struck, 0) / forgive), 0) + 1, MOST_STRIKES)
      struck = now
      if strikes >= 2 then
        block = min(first * 2 ^ (strikes - 2), longest)
        till = now + block
      end
      write(key, rule, sub(state, at), ends, strikes, struck, till, block)
      retry = max(retry, till - now)
    end
  end
  if strikes > 0 or till > 0 then
    return pack('<BddddBddd', verdict + MARK, used, parts, retry, more, strikes, strikes > 0 and max(now - struck, 0) or 0, max(till - now, 0), block)
  end
  return pack('<Bdddd', verdict, used, parts, retry, more)
end

if #KEYS == 1 and calls == 1 then
  local function decide(...)
    return settle(select(3, ...) == 0 and 1 or 0, ...)
  end
  return decide(look(KEYS[1], ARGV[1]))
end

-- How many of the calls this policy allows.
local function fitting(key, rule, verdict, used, parts)
  if verdict > 0 then
    return 0
  end
  local algorithm, limit, window, cost = unpack('<Bddd', rule)
  if calls == 1 or cost == 0 then
    return calls
  end
  local left = algorithm == 3 and floor(((window - used) * limit - parts) / window) or limit - used
  return floor(left / cost)
end

-- Charges as many of the calls as fit, at most `most`, or rejects one. Returns how many, and the answers.
local function decide(most)
  local found, fit = {}, most
  for i = 1, #KEYS do
    found[i] = { look(KEYS[i], ARGV[i]) }
    fit = min(fit, fitting(spread(found[i], 1, FOUND)))
  end
  local answers = {}
  for i = 1, #KEYS do
    answers[i] = settle(fit, spread(found[i], 1, FOUND))
  end
  return fit, table.concat(answers)
end

local fit, answers = decide(calls)
if calls == 1 then
  return answers
end
if fit > 0 and fit < calls then
  local _, rejected = decide(0)
  answers = answers .. rejected
end
return pack('<I4', fit) .. answers
