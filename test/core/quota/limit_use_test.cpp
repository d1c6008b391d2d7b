// limit_use_test.cpp - how much of a meter's limits is used.
#include "core/quota/limit_use.h"

#include <gtest/gtest.h>

#include "meters.h"

namespace keypool {
namespace {

TEST(LimitUse, IsOfWhatCountsOpenCallsIncluded) {
  Meter meter = KeyMeter();
  Limits limits;
  limits.of(Limit::kRpm) = 10;
  limits.of(Limit::kTpm) = 1000;
  limits.of(Limit::kRpd) = 8;
  limits.of(Limit::kInFlight) = 4;
  Use(&meter, Tokens(300), At(0));
  Select(&meter, Tokens(100), At(1));
  EXPECT_EQ(UseOfLimit(meter, limits, Limit::kRpm, At(1)).percent(), 20);
  EXPECT_EQ(UseOfLimit(meter, limits, Limit::kTpm, At(1)).use, 400);
  EXPECT_EQ(UseOfLimit(meter, limits, Limit::kInFlight, At(1)).use, 1);
  LimitUse tightest = TightestLimit(meter, limits, At(1));
  EXPECT_EQ(tightest.limit, Limit::kTpm);
  EXPECT_EQ(tightest.percent(), 40);
  tightest = TightestLimit(meter, limits, At(100));
  EXPECT_EQ(tightest.limit, Limit::kRpd) << "the window is over; of equal ones the first is told";
  EXPECT_EQ(tightest.percent(), 25);
}

TEST(LimitUse, WithoutLimitsIsNone) {
  EXPECT_EQ(TightestLimit(KeyMeter(), {}, At(0)).max, 0);
  EXPECT_EQ(TightestLimit(KeyMeter(), {}, At(0)).percent(), 0);
}

TEST(LimitUse, MayBeAboveTheLimitAndVeryLarge) {
  Meter meter = KeyMeter();
  for (int i = 0; i < 5; ++i) Use(&meter, {}, At(0));
  EXPECT_EQ(TightestLimit(meter, LimitOf(Limit::kRpm, 2), At(0)).percent(), 250);
  Limits limits = LimitOf(Limit::kTokensMonth, INT64_MAX);
  limits.of(Limit::kRpm) = INT64_MAX;
  EXPECT_EQ(TightestLimit(meter, limits, At(0)).percent(), 0);
}

}  // namespace
}  // namespace keypool
