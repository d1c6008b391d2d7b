// limit_use.cpp - how much of a meter's limits is used.
#include "core/quota/limit_use.h"

#include "core/quota/gauge.h"

namespace keypool {

LimitUse UseOfLimit(const Meter &meter, const Limits &limits, Limit limit, TimeUs now) noexcept {
  return {limit, Gauge(meter, limits, limit, MeterNow(meter, now)).use(), limits.of(limit)};
}

LimitUse TightestLimit(const Meter &meter, const Limits &limits, TimeUs now) noexcept {
  LimitUse tightest = {};
  for (int i = 0; i < kLimits; ++i) {
    auto limit = static_cast<Limit>(i);
    if (limits.of(limit) == 0) continue;
    LimitUse found = UseOfLimit(meter, limits, limit, now);
    if (found.IsTighterThan(tightest)) tightest = found;
  }
  return tightest;
}

}  // namespace keypool
