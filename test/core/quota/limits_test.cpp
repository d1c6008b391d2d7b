// limits_test.cpp - what limits ask for, apart from any meter.
#include "core/quota/limits.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "meters.h"

namespace keypool {
namespace {

TEST(Limits, HaveTheNamesOfTheirColumns) {
  std::set<std::string> names;
  for (int i = 0; i < kLimits; ++i) names.insert(LimitName(static_cast<Limit>(i)));
  EXPECT_EQ(names.size(), size_t{kLimits});
  EXPECT_STREQ(LimitName(Limit::kRpm), "max_rpm");
  EXPECT_STREQ(LimitName(Limit::kCostMonth), "max_cost_per_month");
  EXPECT_STREQ(LimitName(Limit::kInFlight), "max_in_flight");
}

TEST(Limits, NeedARingOfTheirWidth) {
  EXPECT_EQ(RingWidth({}), kSecondSlots);
  EXPECT_EQ(RingWidth(LimitOf(Limit::kTpm, 1)), kSecondSlots);
  EXPECT_EQ(RingWidth(LimitOf(Limit::kRph, 1)), kHourSlots);
  EXPECT_EQ(RingWidth(LimitOf(Limit::kTph, 1)), kHourSlots);
  Limits day = LimitOf(Limit::kRpd, 1);
  EXPECT_EQ(RingWidth(day), kSecondSlots);
  day.rolling_day = true;
  EXPECT_EQ(RingWidth(day), kDaySlots);
  Limits month = LimitOf(Limit::kTokensMonth, 1);
  month.rolling_day = true;
  EXPECT_EQ(RingWidth(month), kSecondSlots) << "a rolling day without a limit needs nothing";
}

TEST(Limits, OfTwoWidthsAreTold) {
  for (Limit minute : {Limit::kRpm, Limit::kTpm, Limit::kOutputTpm})
    for (Limit hour : {Limit::kRph, Limit::kTph}) {
      Limits limits = LimitOf(minute, 1);
      EXPECT_TRUE(HaveOneWidth(limits));
      limits.of(hour) = 1;
      EXPECT_FALSE(HaveOneWidth(limits));
    }
  for (Limit other : {Limit::kRpm, Limit::kTph})
    for (Limit day : {Limit::kRpd, Limit::kTpd, Limit::kCostDay}) {
      Limits limits = LimitOf(other, 1);
      limits.of(day) = limits.of(Limit::kTokensMonth) = limits.of(Limit::kInFlight) = 1;
      EXPECT_TRUE(HaveOneWidth(limits));
      limits.rolling_day = true;
      EXPECT_FALSE(HaveOneWidth(limits));
    }
}

TEST(Limits, ThatNeverAdmitARequestAreTold) {
  Limit which;
  Amounts amounts = {100, 60, 10, 7};
  struct {
    Limit limit;
    int64_t just_enough;
  } cases[] = {{Limit::kRpm, 1},   {Limit::kTpm, 100},         {Limit::kOutputTpm, 60}, {Limit::kTph, 100},
               {Limit::kTpd, 100}, {Limit::kTokensMonth, 100}, {Limit::kCostDay, 7},    {Limit::kCostMonth, 7},
               {Limit::kRpd, 1},   {Limit::kInFlight, 1}};
  for (auto [limit, just_enough] : cases) {
    EXPECT_TRUE(CanEverServe(LimitOf(limit, just_enough), amounts, &which)) << LimitName(limit);
    if (just_enough == 1) continue;
    EXPECT_FALSE(CanEverServe(LimitOf(limit, just_enough - 1), amounts, &which));
    EXPECT_EQ(which, limit);
  }
  EXPECT_TRUE(CanEverServe({}, amounts, &which));
  Limits input = LimitOf(Limit::kTpm, 30);
  input.rule = {Counts::kInput, 1};
  EXPECT_TRUE(CanEverServe(input, amounts, &which)) << "100 - 60 - 10 tokens count";
  Limits weighted = LimitOf(Limit::kTpm, 339);
  weighted.rule = {Counts::kTokens, 5};
  EXPECT_FALSE(CanEverServe(weighted, amounts, &which)) << "40 + 5 * 60 tokens count";
}

}  // namespace
}  // namespace keypool
