-- window.lua - the 60 seconds of a key, in its hash: one bucket for each second, and their sums. Both scripts begin with it.
--
-- At second s the window is the seconds s-60 to s. The buckets r0..r63 (requests) and t0..t63 (tokens) are those of the seconds
-- modulo 64. `second` is the second up to which the sums are right.

-- What the sums lose when they are brought from second `last` to `now`; the buckets to clear, as fields and zeros for HSET; and whether
-- the bucket of `now` still has the numbers of 64 seconds ago.
local function leaving(key, last, now)
  local first, final = last - 60, math.min(last, now - 61)
  local changes, stale = {}, false
  if final < first then return 0, 0, changes, stale end
  local names = {}
  for s = first, final do
    names[#names + 1] = 'r' .. s % 64
    names[#names + 1] = 't' .. s % 64
  end
  local buckets = redis.call('HMGET', key, unpack(names))
  local sums = {0, 0}
  for i, name in ipairs(names) do
    if buckets[i] then
      sums[(i - 1) % 2 + 1] = sums[(i - 1) % 2 + 1] + buckets[i]
      if (first + math.floor((i - 1) / 2)) % 64 == now % 64 then
        stale = true
      else
        changes[#changes + 1] = name
        changes[#changes + 1] = 0
      end
    end
  end
  return sums[1], sums[2], changes, stale
end

-- Text of a whole number: Lua's own turns to 1e+15 above 10^14.
local function whole(number) return string.format('%.0f', number) end

-- Where a key stands in the order: priority, then the microsecond of the last grant. Exact for priorities 0 to 31 until 2032, and no
-- two scripts run in one microsecond.
local function place(priority, time)
  return string.format('%.0f', priority * 2 ^ 48 + (time[1] - 1704067200) * 1000000 + time[2])
end
