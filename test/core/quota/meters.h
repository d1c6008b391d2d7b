// meters.h - what the tests of meters share: times, requests, and edits that nobody logs.
#pragma once

#include <random>

#include "core/quota/call.h"
#include "core/quota/slots.h"

namespace keypool {

inline constexpr TimeUs kStart = TimeUs{1767268800} * kMicrosPerSecond;  // a whole minute, and 1,440 seconds
inline constexpr TimeUs At(double seconds) { return kStart + static_cast<TimeUs>(seconds * kMicrosPerSecond); }
inline constexpr PeriodEnds kFarEnds = {SecondOf(kStart) + 86400, SecondOf(kStart) + 30 * 86400};

inline Meter KeyMeter() { return FreshMeter(kSecondSlots, kDefaultCallTimeout); }

inline Limits LimitOf(Limit limit, int64_t max) {
  Limits limits;
  limits.of(limit) = max;
  return limits;
}

inline Amounts Tokens(int64_t tokens) { return {tokens, 0, 0, 0}; }

inline Admission Admits(const Meter &meter, const Limits &limits, const Amounts &amounts, TimeUs now) {
  return Admit(meter, limits, {amounts, 0, now});
}

inline bool Serves(const Meter &meter, const Limits &limits, TimeUs now) {
  return Admits(meter, limits, {}, now).admitted();
}

// Selects and settles by the meter's own clock.
inline Reservation Select(Meter *meter, const Amounts &estimates, TimeUs now, bool is_key = true,
                          const CountRule &rule = {}) {
  now = MeterNow(*meter, now);
  return {SecondOf(now), Reserve(meter, rule, estimates, is_key, 0, now), estimates};
}

inline Settled Record(Meter *key, const Reservation &reservation, const Amounts &used, TimeUs now,
                      const PeriodEnds &ends = kFarEnds) {
  now = SettlingNow(&key, 1, reservation, now);
  MeterEdit edit(key);
  Settled settled = SettleOnce(&edit, reservation, now);
  if (settled != Settled::kBefore) Count(&edit, {}, used, reservation.second, ends, now);
  return settled;
}

inline Settled Release(Meter *key, const Reservation &reservation, TimeUs now) {
  now = SettlingNow(&key, 1, reservation, now);
  MeterEdit edit(key);
  return SettleOnce(&edit, reservation, now);
}

// Counts a request that nobody selected.
inline void Use(Meter *meter, const Amounts &used, TimeUs now, const CountRule &rule = {},
                const PeriodEnds &ends = kFarEnds) {
  now = MeterNow(*meter, now);
  MeterEdit edit(meter);
  Count(&edit, rule, used, SecondOf(now), ends, now);
}

// A call that ends so; `lease` null: it has none.
inline CallEnd EndOf(Ending ending, const Reservation *lease, const Amounts &used) {
  CallEnd end = {};
  end.ending = ending;
  end.has_lease = lease != nullptr;
  if (lease != nullptr) end.reservation = *lease;
  end.used = used;
  return end;
}

inline TimeUs Cool(Meter *meter, TimeUs until, TimeUs now) {
  MeterEdit edit(meter);
  return Block(&edit, until, MeterNow(*meter, now));
}

}  // namespace keypool
