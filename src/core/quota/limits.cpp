// limits.cpp - what limits ask for, apart from any meter.
#include "core/quota/limits.h"

#include <algorithm>
#include <cassert>

namespace keypool {

namespace {

bool AnyOf(const Limits &limits, Limit first, Limit last) {
  int64_t any = 0;
  for (int i = static_cast<int>(first); i <= static_cast<int>(last); ++i) any |= limits.max[i];
  return any != 0;
}

bool HasMinutes(const Limits &limits) { return AnyOf(limits, Limit::kRpm, Limit::kOutputTpm); }
bool HasHours(const Limits &limits) { return AnyOf(limits, Limit::kRph, Limit::kTph); }
bool HasRollingDay(const Limits &limits) {
  return limits.rolling_day && (AnyOf(limits, Limit::kRpd, Limit::kTpd) || limits.of(Limit::kCostDay) != 0);
}

// What of a request the limit is about; 1 for requests and calls.
int64_t Asked(Limit limit, const Amounts &amounts, int64_t counted) {
  switch (limit) {
    case Limit::kTpm:
    case Limit::kTph:
    case Limit::kTpd:
    case Limit::kTokensMonth:
      return counted;
    case Limit::kOutputTpm:
      return amounts.output;
    case Limit::kCostDay:
    case Limit::kCostMonth:
      return amounts.cost;
    default:
      return 1;
  }
}

}  // namespace

const char *LimitName(Limit limit) noexcept {
  static constexpr const char *kNames[kLimits] = {"max_rpm",
                                                  "max_tpm",
                                                  "max_output_tpm",
                                                  "max_rph",
                                                  "max_tph",
                                                  "max_rpd",
                                                  "max_tpd",
                                                  "max_requests_per_month",
                                                  "max_tokens_per_month",
                                                  "max_cost_per_day",
                                                  "max_cost_per_month",
                                                  "max_in_flight"};
  assert(limit < Limit::kCount);
  return kNames[static_cast<int>(limit)];
}

uint32_t RingWidth(const Limits &limits) noexcept {
  if (HasRollingDay(limits)) return kDaySlots;
  return HasHours(limits) ? kHourSlots : kSecondSlots;
}

bool HaveOneWidth(const Limits &limits) noexcept {
  return HasMinutes(limits) + HasHours(limits) + HasRollingDay(limits) <= 1;
}

// Most limits are far above any request: the first look is one comparison for all of them.
bool CanEverServe(const Limits &limits, const Amounts &amounts, Limit *which) noexcept {
  int64_t counted = CountedTokens(amounts, limits.rule);
  auto most = static_cast<uint64_t>(std::max(std::max(counted, amounts.output), std::max(amounts.cost, int64_t{1})));
  bool all_above = true;
  for (int64_t max : limits.max) all_above &= static_cast<uint64_t>(max) - 1 >= most - 1;  // none is above all
  if (all_above) return true;
  for (int i = 0; i < kLimits; ++i) {
    *which = static_cast<Limit>(i);
    assert(limits.max[i] >= 0);
    if (limits.max[i] != 0 && Asked(*which, amounts, counted) > limits.max[i]) return false;
  }
  return true;
}

}  // namespace keypool
