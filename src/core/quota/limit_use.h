// limit_use.h - how much of a meter's limits is used.
#pragma once

#include "core/quota/limits.h"
#include "core/quota/meter.h"

namespace keypool {

struct LimitUse {
  Limit limit;
  int64_t use;
  int64_t max;  // 0: there is no limit

  // Rounded down; more than 100 where more was recorded than the limit admits.
  int64_t percent() const { return max == 0 ? 0 : static_cast<int64_t>(static_cast<double>(use) / max * 100); }

  // Whether more of this one is used than of another.
  bool IsTighterThan(const LimitUse &other) const {
    return max != 0 && (other.max == 0 || static_cast<double>(use) / max > static_cast<double>(other.use) / other.max);
  }
};

// What counts against a limit at a moment, open calls included. The meter's ring must be as wide as the limits need it.
LimitUse UseOfLimit(const Meter &meter, const Limits &limits, Limit limit, TimeUs now) noexcept;

// The limit of which most is used at a moment; the first of several.
LimitUse TightestLimit(const Meter &meter, const Limits &limits, TimeUs now) noexcept;

}  // namespace keypool
