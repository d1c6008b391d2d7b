// lease_fuzzer.cpp - any text as a lease, applied to any history of a key and a quota: nothing goes below zero, a
// good lease comes back as it was, and what is settled is settled once.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/quota/lease.h"

using namespace keypool;

namespace {

struct Pool {
  Meter key = FreshMeter(kSecondSlots, kDefaultCallTimeout);
  Meter quota = FreshMeter(kHourSlots, 60);
  KeyId id = {{1, 2, 3}};
  char last[kLeaseSize] = {};
};

void Select(Pool *pool, int64_t amount, TimeUs now) {
  Lease lease = {};
  const Meter *meters[] = {&pool->key, &pool->quota};
  now = CommonNow(meters, 2, now);
  lease.reservation = {SecondOf(now), 0, {amount, amount / 2, amount / 3, amount}};
  lease.reservation.sequence = Reserve(&pool->key, {}, lease.reservation.estimates, true, 0, now);
  Reserve(&pool->quota, {Counts::kUncached, 3}, lease.reservation.estimates, false, 0, now);
  EncodeLease(pool->id, lease, pool->last);
}

void Settle(Pool *pool, const Lease &lease, int64_t amount, TimeUs now) {
  const Meter *meters[] = {&pool->key, &pool->quota};
  now = SettlingNow(meters, 2, lease.reservation, now);
  PeriodEnds ends = {SecondOf(now) + 50, SecondOf(now) + 500};
  MeterEdit key(&pool->key), quota(&pool->quota);
  int64_t requests = pool->key.recorded.totals.requests;
  Settled settled = SettleOnce(&key, lease.reservation, now);
  if (settled == Settled::kBefore) return;
  CloseInQuota(&quota, {Counts::kUncached, 3}, lease.reservation);
  Count(&key, {}, {amount, 0, 0, 1}, lease.reservation.second, ends, now);
  Count(&quota, {}, {amount, 0, 0, 1}, lease.reservation.second, ends, now);
  if (pool->key.recorded.totals.requests != requests + 1) abort();
  if (settled == Settled::kNow && lease.reservation.sequence < kTrackedSelections &&
      SettleOnce(&key, lease.reservation, now) != Settled::kBefore)
    abort();
  const ChangedBytes *changes;
  if (key.Finish(&changes) > kMaxChanges) abort();
}

void CheckComesBack(const KeyId &key, const Lease &lease, TimeUs now) {
  char text[kLeaseSize], again[kLeaseSize];
  EncodeLease(key, lease, text);
  Lease read;
  LeaseAge age;
  if (!DecodeLease(key, {text, kLeaseSize}, now, &read, &age).ok()) abort();
  EncodeLease(key, read, again);
  if (memcmp(again, text, kLeaseSize) != 0) abort();
}

void Check(const Pool &pool, TimeUs now) {
  for (const Meter *meter : {&pool.key, &pool.quota}) {
    WindowUse use = UseInWindow(*meter, now);
    if (use.requests < use.open || use.open < 0 || use.tokens < 0 || CallsInFlight(*meter, now).calls < 0) abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Pool pool;
  TimeUs now = TimeUs{1767268800} * kMicrosPerSecond;
  while (size >= 4) {
    now += (data[1] - 20) * kMicrosPerSecond / 8;
    int64_t amount = data[2] * 256 + data[3];
    uint8_t action = data[0];
    data += 4, size -= 4;
    size_t taken = action % 4 == 3 ? std::min(size, kLeaseSize) : 0;
    std::string_view text = action % 4 == 3 ? std::string_view(reinterpret_cast<const char *>(data), taken)
                                            : std::string_view(pool.last, kLeaseSize);
    data += taken, size -= taken;
    if (action % 4 == 0) Select(&pool, amount, now);
    Lease lease;
    LeaseAge age;
    if (action % 4 != 0 && DecodeLease(pool.id, text, now, &lease, &age).ok()) {
      CheckComesBack(pool.id, lease, now);
      Settle(&pool, lease, amount, now);
    }
    Check(pool, now);
  }
  return 0;
}
