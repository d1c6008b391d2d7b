-- load.lua - makes a pool. KEYS: the provider's ready keys. ARGV: provider, number of keys.
local now = redis.call('TIME')[1]
for i = 1, ARGV[2] do
  local id = string.format('00000000-0000-4000-8000-%012d', i + ARGV[2] * 1000000)
  redis.call('HSET', 'key:' .. id, 'key_value', 'sk-bench-' .. string.rep('0', 41), 'key_label', 'bench ' .. i, 'priority', 0,
             'max_rpm', 1000000000, 'max_tpm', '1000000000000', 'cooldown_until', 0, 'second', now, 'requests', 0, 'tokens', 0,
             'total_requests', 0, 'total_tokens', 0)
  redis.call('ZADD', KEYS[1], 0, id)
end
return 'OK'
