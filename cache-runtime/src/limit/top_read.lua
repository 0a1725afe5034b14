-- Returns the clients that were rejected most often, over several hours.
--
-- KEYS     the sorted sets of the hours, all in one slot
-- ARGV[1]  the number of clients to return
-- Answers clients and their counts alternately, highest first.
--
-- A script, because ZUNION returns all clients of all hours and only a few are needed.
local sets = { #KEYS }
for _, key in ipairs(KEYS) do
  sets[#sets + 1] = key
end
sets[#sets + 1] = 'WITHSCORES'
local all = redis.call('ZUNION', unpack(sets))
local most = {}
for i = #all - 1, math.max(1, #all - 2 * ARGV[1] + 1), -2 do
  most[#most + 1] = all[i]
  most[#most + 1] = all[i + 1]
end
return most
