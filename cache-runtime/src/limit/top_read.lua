-- The clients that were rejected most often in several hours together.
--
-- KEYS     the sorted sets of the hours, all in one slot
-- ARGV[1]  how many clients are wanted
-- Answers clients and their counts by turns, highest first.
--
-- A script, because ZUNION answers all clients of all hours, and few are wanted.
local sets = { 'ZUNION', #KEYS }
for _, key in ipairs(KEYS) do
  sets[#sets + 1] = key
end
sets[#sets + 1] = 'WITHSCORES'
local all = redis.call(unpack(sets))
local most = {}
for i = #all - 1, math.max(1, #all - 2 * ARGV[1] + 1), -2 do
  most[#most + 1] = all[i]
  most[#most + 1] = all[i + 1]
end
return most
