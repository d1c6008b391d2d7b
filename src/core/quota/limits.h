// limits.h - what may happen within a period, as configuration says. Limits ask a meter; they are no part of it.
#pragma once

#include <cstdint>

#include "core/quota/amounts.h"
#include "core/quota/time.h"

namespace keypool {

// The limits in the order of their columns. The names of the columns are LimitName.
enum class Limit : uint8_t {
  kRpm,            // max_rpm: requests in any 60 seconds
  kTpm,            // max_tpm
  kOutputTpm,      // max_output_tpm
  kRph,            // max_rph: requests in any hour
  kTph,            // max_tph
  kRpd,            // max_rpd: requests in a day
  kTpd,            // max_tpd
  kRequestsMonth,  // max_requests_per_month
  kTokensMonth,    // max_tokens_per_month
  kCostDay,        // max_cost_per_day
  kCostMonth,      // max_cost_per_month
  kInFlight,       // max_in_flight: calls that are open
  kCount,
};
inline constexpr int kLimits = static_cast<int>(Limit::kCount);

const char *LimitName(Limit limit) noexcept;

inline constexpr int kMinBurstSeconds = 1;
inline constexpr int kMaxBurstSeconds = 30;

// All limits of a key or a quota. 0: none.
struct Limits {
  int64_t max[kLimits] = {};
  uint8_t burst_seconds = 0;  // in no interval of so many seconds more than that share of max_rpm, rounded up; 0: off
  bool rolling_day = false;   // a day is the last 24 hours, not a day of the calendar
  CountRule rule;

  int64_t of(Limit limit) const { return max[static_cast<int>(limit)]; }
  int64_t &of(Limit limit) { return max[static_cast<int>(limit)]; }

  friend bool operator==(const Limits &, const Limits &) = default;
};

// Seconds that one slot of a meter's recorded ring stands for, as the limits need it: 1, 60 for hours, 1,440 for a
// rolling day.
inline constexpr uint32_t kSecondSlots = 1;
inline constexpr uint32_t kHourSlots = 60;
inline constexpr uint32_t kDaySlots = 1440;
uint32_t RingWidth(const Limits &limits) noexcept;

// Whether one ring can answer all the limits: not hours beside minutes, and no rolling day beside either.
bool HaveOneWidth(const Limits &limits) noexcept;

// Whether the limits can ever admit a request of these amounts; if not, `*which` is the first that never does.
bool CanEverServe(const Limits &limits, const Amounts &amounts, Limit *which) noexcept;

}  // namespace keypool
