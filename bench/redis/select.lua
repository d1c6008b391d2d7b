-- select.lua - hands out the best key of a provider, and reserves the request: one script, so one step.
--
-- KEYS: the provider's ready keys, in order; its parked keys, by the second at which to look at them again. ARGV: tokens.
-- Answers what keypool_select answers. An error if there is no key, so that no refusal is counted as a grant.
local time = redis.call('TIME')
local now, tokens = tonumber(time[1]), tonumber(ARGV[1])

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)) do
  local key = 'key:' .. id
  local of = redis.call('HMGET', key, 'priority', 'place')
  redis.call('ZREM', KEYS[2], id)
  redis.call('HDEL', key, 'parked')
  redis.call('ZADD', KEYS[1], of[2] or place(of[1], {1704067200, 0}), id)
end

while true do
  local id = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
  if not id then return redis.error_reply('KP429 every key of the provider is cooling or at its limits') end
  local key, r, t = 'key:' .. id, 'r' .. now % 64, 't' .. now % 64
  local of = redis.call('HMGET', key, 'key_value', 'key_label', 'priority', 'max_rpm', 'max_tpm', 'cooldown_until', 'second',
                        'requests', 'tokens', r, t)
  local requests_left, tokens_left, changes, stale = leaving(key, tonumber(of[7]), now)
  local requests, used = of[8] - requests_left, of[9] - tokens_left
  local rpm, tpm, cool = tonumber(of[4]), tonumber(of[5]), tonumber(of[6])
  if cool <= now and (rpm == 0 or requests + 1 <= rpm) and (tpm == 0 or used < tpm and used + tokens <= tpm) then
    local next_place = place(of[3], time)
    local r_now, t_now = of[10] or 0, of[11] or 0
    if stale then r_now, t_now = 0, 0 end
    redis.call('HSET', key, 'second', now, 'requests', whole(requests + 1), 'tokens', whole(used + tokens), 'place', next_place,
               r, whole(r_now + 1), t, whole(t_now + tokens), unpack(changes))
    redis.call('ZADD', KEYS[1], next_place, id)
    return {id, of[1], now .. ':' .. ARGV[1], of[2], of[3], of[4], of[5], 'ok'}
  end
  redis.call('HSET', key, 'parked', 1)
  redis.call('ZREM', KEYS[1], id)
  redis.call('ZADD', KEYS[2], math.max(cool, now + 1), id)
end
