-- settle.lua - puts what a request used in the place of what it reserved.
--
-- KEYS: the provider's ready keys; its parked keys; the key's hash. ARGV: the key's id, tokens, lease. A lease that is settled twice is
-- not noticed, which spares Redis a set of open leases, and favours it.
local time = redis.call('TIME')
local now, tokens, key = tonumber(time[1]), tonumber(ARGV[2]), KEYS[3]
local granted, estimate = string.match(ARGV[3], '^(%d+):(%d+)$')
granted, estimate = tonumber(granted), tonumber(estimate)
local here, there = 't' .. now % 64, 't' .. granted % 64
local of = redis.call('HMGET', key, 'second', 'requests', 'tokens', 'total_requests', 'total_tokens', 'parked',
                      here, there)
if not of[1] then return redis.error_reply('KP404 no such key') end
local requests_left, tokens_left, changes, stale = leaving(key, tonumber(of[1]), now)
local known = granted >= now - 60 and estimate or 0
local t_now = (stale and 0 or of[7] or 0) + tokens
if granted == now then
  t_now = t_now - known
elseif known > 0 then
  changes[#changes + 1] = there
  changes[#changes + 1] = whole(of[8] - known)
end
redis.call('HSET', key, 'second', now, 'requests', whole(of[2] - requests_left),
           'tokens', whole(of[3] - tokens_left - known + tokens), 'last_used_at', now,
           'total_requests', whole(of[4] + 1), 'total_tokens', whole(of[5] + tokens), here, whole(t_now), unpack(changes))
if of[6] then redis.call('ZADD', KEYS[2], 'LT', now, ARGV[1]) end
return 'OK'
