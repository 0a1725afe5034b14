-- Adds what one process counted to the rejections of one hour.
--
-- KEYS[1]  the sorted set of that hour
-- ARGV[1]  how many clients it keeps
-- ARGV[2]  how long it lives, in milliseconds
-- ARGV[3…] a client, and how often it was rejected, by turns
-- Answers nothing.
--
-- One step, so that the set is never longer than it may be and never without an expiry.
for i = 3, #ARGV, 2 do
  redis.call('ZINCRBY', KEYS[1], ARGV[i + 1], ARGV[i])
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[1] - 1)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return false
