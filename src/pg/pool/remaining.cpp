// remaining.cpp - which meters of a call a provider speaks of when it says how much is left of its limits.
#include "pg/pool/remaining.h"

using keypool::Allowance;
using keypool::AllowancePeriod;
using keypool::AllowanceUnit;

// The limit for a minute that is of this unit; kCount: none is.
static keypool::Limit limit_of(AllowanceUnit unit, const keypool::CountRule &rule) {
  bool all = rule.counts == keypool::Counts::kTokens;
  switch (unit) {
    case AllowanceUnit::kRequests:
      return keypool::Limit::kRpm;
    case AllowanceUnit::kTokens:
      return all ? keypool::Limit::kTpm : keypool::Limit::kCount;
    case AllowanceUnit::kInputTokens:
      return all ? keypool::Limit::kCount : keypool::Limit::kTpm;
    case AllowanceUnit::kOutputTokens:
      return keypool::Limit::kOutputTpm;
  }
  pg_unreachable();
}

static bool counts_it(const keypool::Limits *limits, const Allowance &allowance, keypool::Limit *limit) {
  bool of_minute = allowance.period == AllowancePeriod::kUnknown || allowance.period == AllowancePeriod::kMinute;
  if (limits == nullptr || !of_minute || allowance.limit <= 0) return false;
  *limit = limit_of(allowance.unit, limits->rule);
  return *limit != keypool::Limit::kCount && limits->of(*limit) == allowance.limit;
}

static void add_observed(Remaining *remaining, int meter, keypool::Limit limit, const Allowance &allowance,
                         keypool::TimeUs written) {
  if (remaining->count == keypool::kMaxAllowances) return;
  int64 used = allowance.limit - Min(allowance.remaining, allowance.limit);
  remaining->observed[remaining->count++] = {static_cast<uint8>(meter), limit, used, keypool::SecondOf(written)};
}

Remaining remaining_of(const keypool::Answer &answer, const CallMeters &call, keypool::TimeUs written) {
  Remaining remaining = {};
  for (int i = 0; i < answer.allowance_count; ++i) {
    const Allowance &allowance = answer.allowance[i];
    if (allowance.remaining < 0) continue;
    bool counted = false;
    for (int m = 0; m < call.count; ++m) {
      keypool::Limit limit;
      if (!counts_it(call.limits[m], allowance, &limit)) continue;
      add_observed(&remaining, m, limit, allowance, written);
      counted = true;
    }
    if (!counted && allowance.remaining == 0) remaining.used_up_until = Max(remaining.used_up_until, allowance.reset);
  }
  return remaining;
}
