-- Adds the counts of a process to the rejections of an hour.
--
-- KEYS[1]  the sorted set of that hour
-- ARGV[1]  the number of clients that it keeps
-- ARGV[2]  its TTL in milliseconds
-- ARGV[3…] clients and their counts, alternately
-- Answers nothing.
--
-- Atomic, so that the set never exceeds its size and never lacks an expiry.
for i = 3, #ARGV, 2 do
  redis.call('ZINCRBY', KEYS[1], ARGV[i + 1], ARGV[i])
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[1] - 1)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return false
