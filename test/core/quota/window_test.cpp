// window_test.cpp - what a meter holds: windows of each width, open calls, periods, and the clock.
#include "core/quota/window.h"

#include <gtest/gtest.h>

#include "core/quota/usage.h"
#include "meters.h"

namespace keypool {
namespace {

TEST(Meter, OfNothingHoldsNothing) {
  Meter meter = FreshMeter(kHourSlots, 60);
  EXPECT_EQ(meter.layout, kLayout);
  EXPECT_EQ(meter.recorded.ring_width, kHourSlots);
  EXPECT_EQ(meter.recorded.call_timeout, 60u);
  EXPECT_EQ(MeterNow(meter, 5), 5);
  EXPECT_EQ(UseInWindow(meter, kStart).requests, 0);
  EXPECT_EQ(UseInPeriod(meter, meter.recorded.day, {}, kStart).requests, 0);
}

TEST(Window, HoldsForSixtySecondsAndTheRestOfTheSecond) {
  Meter meter = KeyMeter();
  Use(&meter, Tokens(7), At(0.5));
  for (double age : {0.5, 60.0, 60.999}) EXPECT_EQ(UseInWindow(meter, At(age)).tokens, 7) << age;
  EXPECT_EQ(UseInWindow(meter, At(61)).requests, 0);
}

TEST(Window, CountsRecordedAndReservedTogether) {
  Meter meter = KeyMeter();
  Reservation first = Select(&meter, {100, 40, 0, 0}, At(0));
  Select(&meter, {50, 20, 0, 0}, At(1));
  Record(&meter, first, {70, 10, 0, 0}, At(2));
  WindowUse use = UseInWindow(meter, At(2));
  EXPECT_EQ(use.requests, 2);
  EXPECT_EQ(use.tokens, 120);
  EXPECT_EQ(use.output, 30);
  EXPECT_EQ(use.open, 1);
}

TEST(Window, CountsARequestWhereItWasSelectedAndItsTokensWhereItWasSettled) {
  Meter meter = KeyMeter();
  Record(&meter, Select(&meter, Tokens(500), At(0)), Tokens(90), At(30));
  EXPECT_EQ(UseInWindow(meter, At(60)).requests, 1);
  EXPECT_EQ(UseInWindow(meter, At(61)).requests, 0);
  EXPECT_EQ(UseInWindow(meter, At(61)).tokens, 90);
  EXPECT_EQ(UseInWindow(meter, At(91)).tokens, 0);
}

TEST(Window, CountsATooLongCallsTokensOnly) {
  Meter meter = KeyMeter();
  Record(&meter, Select(&meter, Tokens(500), At(0)), Tokens(90), At(61));
  EXPECT_EQ(UseInWindow(meter, At(61)).requests, 0);
  EXPECT_EQ(UseInWindow(meter, At(61)).tokens, 90);
}

TEST(Window, ForgetsAReservationThatNobodySettles) {
  Meter meter = KeyMeter();
  Select(&meter, Tokens(5), At(0));
  EXPECT_EQ(UseInWindow(meter, At(60)).tokens, 5);
  EXPECT_EQ(UseInWindow(meter, At(61)).tokens, 0);
  EXPECT_EQ(UseInWindow(meter, At(86400)).requests, 0);
}

// Wider rings: an hour in slots of a minute, a day in slots of 24 minutes. Never less than that, at most a slot more.
TEST(Window, OfAWiderRingHoldsSixtySlotsAndTheRestOfOne) {
  for (uint32_t width : {kHourSlots, kDaySlots}) {
    Meter meter = FreshMeter(width, kDefaultCallTimeout);
    Use(&meter, {7, 0, 0, 1000}, At(width - 1));
    EXPECT_EQ(UseInWindow(meter, At(width - 1 + 60.0 * width)).tokens, 7);
    EXPECT_EQ(CostInWindow(meter, At(width - 1 + 60.0 * width)), 1000);
    EXPECT_EQ(UseInWindow(meter, At(61.0 * width)).requests, 0);
    EXPECT_EQ(CostInWindow(meter, At(61.0 * width)), 0);
  }
}

TEST(Window, OfAWiderRingCountsCallsThatAreOpenWheneverTheyWereSelected) {
  Meter meter = FreshMeter(kHourSlots, kMaxCallTimeout);
  Select(&meter, {30, 0, 0, 500}, At(0), false);
  WindowUse use = UseInWindow(meter, At(3 * 3600));
  EXPECT_EQ(use.requests, 1);
  EXPECT_EQ(use.open, 1);
  EXPECT_EQ(use.tokens, 30);
  EXPECT_EQ(CostInWindow(meter, At(3 * 3600)), 500);
}

TEST(Window, SumsWhatThirtyTwoBitsDoNotHold) {
  Meter meter = KeyMeter();
  for (int i = 0; i < 60; ++i) {
    Use(&meter, {kMaxTokens, kMaxTokens, 0, 0}, At(i));
    Select(&meter, {kMaxTokens, kMaxTokens, 0, 0}, At(i));
  }
  EXPECT_EQ(UseInWindow(meter, At(59)).tokens, 120 * kMaxTokens);
  EXPECT_EQ(UseInWindow(meter, At(59)).output, 120 * kMaxTokens);
  EXPECT_EQ(UseInWindow(meter, At(59)).requests, 120);
}

TEST(Window, CountsManyCallsOfASecond) {
  Meter meter = KeyMeter();
  for (int second = 0; second < 3; ++second)
    for (int i = 0; i < 60000; ++i) Select(&meter, {}, At(second));
  EXPECT_EQ(UseInWindow(meter, At(2)).open, 180000);
}

// Where no second has many calls, and where what selections count and what is open are summed together.
TEST(Window, CountsManyCallsOfAMinute) {
  for (bool is_key : {true, false}) {
    for (int of_a_second : {1, 63, 1023, 1024, 2000}) {
      Meter meter = KeyMeter();
      for (int i = 0; i < 61 * of_a_second; ++i) Select(&meter, {}, At(i / of_a_second), is_key);
      EXPECT_EQ(UseInWindow(meter, At(60)).open, 61 * of_a_second);
      EXPECT_EQ(UseInWindow(meter, At(61)).open, 60 * of_a_second);
    }
  }
}

TEST(Slot, StaysAtItsTop) {
  Meter meter = KeyMeter();
  for (int i = 0; i < 6; ++i) Use(&meter, {kMaxTokens, kMaxTokens, 0, 0}, kStart);
  EXPECT_EQ(UseInWindow(meter, kStart).tokens, UINT32_MAX);
  EXPECT_EQ(UseInWindow(meter, kStart).output, UINT32_MAX);
  EXPECT_EQ(meter.recorded.totals.tokens, 6 * kMaxTokens) << "totals go on";
  for (int i = 0; i < 70000; ++i) Select(&meter, Tokens(kMaxTokens), kStart);
  EXPECT_EQ(UseInWindow(meter, kStart).open, 65535);
}

TEST(OpenCalls, ArePlacesUntilTheyAreSettled) {
  Meter meter = KeyMeter();
  Reservation first = Select(&meter, {10, 0, 0, 500}, At(0)), second = Select(&meter, {20, 0, 0, 700}, At(100));
  OpenCalls open = CallsInFlight(meter, At(200));
  EXPECT_EQ(open.calls, 2);
  EXPECT_EQ(open.tokens, 30);
  EXPECT_EQ(open.cost, 1200);
  Record(&meter, first, {}, At(200));
  EXPECT_EQ(CallsInFlight(meter, At(200)).cost, 700);
  EXPECT_EQ(Release(&meter, second, At(250)), Settled::kTooOld);
  EXPECT_EQ(CallsInFlight(meter, At(250)).calls, 0);
}

TEST(OpenCalls, ComeBackAfterTheTimeoutAtMostASlotLater) {
  for (uint32_t timeout : {kMinCallTimeout, 100u, kDefaultCallTimeout, kMaxCallTimeout})
    for (int offset : {0, 1, 59, 1000}) {
      Meter meter = FreshMeter(kSecondSlots, timeout);
      Select(&meter, Tokens(1), At(offset));
      Second width = OpenSlotWidth(meter);
      EXPECT_EQ(width, (timeout + 14) / 15);
      EXPECT_EQ(CallsInFlight(meter, At(offset + timeout)).calls, 1);
      EXPECT_EQ(CallsInFlight(meter, At(offset + 16.0 * width)).calls, 0);
    }
}

TEST(OpenCalls, ThatWereGivenUpAreCountedWhenTheirSlotIsUsedAgain) {
  Meter meter = KeyMeter();
  Select(&meter, {}, At(0));
  Select(&meter, {}, At(0));
  Second width = OpenSlotWidth(meter);
  Select(&meter, {}, At(15.0 * width));
  EXPECT_EQ(meter.reserved.expiries, 0);
  Select(&meter, {}, At(16.0 * width));
  EXPECT_EQ(meter.reserved.expiries, 2);
  EXPECT_EQ(CallsInFlight(meter, At(16.0 * width)).calls, 2);
}

TEST(Period, GoesOnUntilItsEnd) {
  Meter meter = KeyMeter();
  PeriodEnds ends = {SecondOf(At(100)), SecondOf(At(1000))};
  Use(&meter, {10, 4, 2, 50}, At(0), {}, ends);
  Use(&meter, {20, 4, 2, 50}, At(99.9), {}, {SecondOf(At(777)), SecondOf(At(7777))});
  EXPECT_EQ(UseInPeriod(meter, meter.recorded.day, {}, At(99.9)).tokens, 30);
  EXPECT_EQ(UseInPeriod(meter, meter.recorded.day, {}, At(100)).requests, 0);
  EXPECT_EQ(UseInPeriod(meter, meter.recorded.month, {}, At(999)).cost, 100);
  Use(&meter, {5, 0, 0, 1}, At(100), {}, {SecondOf(At(200)), SecondOf(At(7777))});
  PeriodUse day = UseInPeriod(meter, meter.recorded.day, {}, At(100));
  EXPECT_EQ(day.requests, 1);
  EXPECT_EQ(day.tokens, 5);
  EXPECT_EQ(day.cost, 1);
  EXPECT_EQ(UseInPeriod(meter, meter.recorded.month, {}, At(100)).requests, 3);
}

TEST(Period, IsCountedByTheRuleThatAsks) {
  Meter meter = KeyMeter();
  Use(&meter, {100, 30, 20, 0}, At(0));
  Use(&meter, {100, 30, 20, 0}, At(1));
  EXPECT_EQ(UseInPeriod(meter, meter.recorded.day, {Counts::kInput, 1}, At(1)).tokens, 100);
  EXPECT_EQ(UseInPeriod(meter, meter.recorded.day, {Counts::kUncached, 5}, At(1)).tokens, 400);
}

TEST(Period, GoesByTheMetersOwnClock) {
  Meter meter = KeyMeter();
  PeriodEnds ends = {SecondOf(At(100)), SecondOf(At(100))};
  Use(&meter, Tokens(10), At(99), {}, ends);
  Select(&meter, Tokens(1), At(101));
  EXPECT_EQ(UseInPeriod(meter, meter.recorded.day, {}, At(50)).tokens, 0) << "it has seen the next day";
  Use(&meter, Tokens(1), At(50), {}, ends);
  EXPECT_EQ(UseInPeriod(meter, meter.recorded.day, {}, At(50)).tokens, 1) << "ends that are over are put off by a day";
  EXPECT_EQ(meter.recorded.day.end, SecondOf(At(100 + 86400)));
}

TEST(Period, GoesOnAtTheTopOfTheTotals) {
  Meter meter = KeyMeter();
  Use(&meter, {}, At(0));
  meter.recorded.totals.tokens = meter.recorded.day.tokens = meter.recorded.month.tokens = INT64_MAX - 5;
  meter.recorded.minute_tokens = INT64_MAX - 5;
  Use(&meter, {100, 100, 0, kMaxCost}, At(1));
  EXPECT_EQ(meter.recorded.totals.tokens, INT64_MAX);
  Use(&meter, {7, 0, 0, 0}, At(2));
  EXPECT_EQ(UseInPeriod(meter, meter.recorded.day, {}, At(2)).tokens, 107);
  EXPECT_EQ(UseInPeriod(meter, meter.recorded.month, {}, At(2)).cost, kMaxCost);
  UsageSlot use[kMaxUsage];
  ASSERT_EQ(UsageBy(meter, Span::kMinute, 1, At(2), use), 1);
  EXPECT_EQ(use[0].tokens, 107);
  EXPECT_EQ(use[0].requests, 3u);
}

TEST(Clock, ThatStepsBackTakesTheNewestTimeForNow) {
  Meter meter = KeyMeter();
  Select(&meter, {}, At(100.25));
  EXPECT_EQ(MeterNow(meter, At(40)), At(100.25));
  EXPECT_FALSE(Serves(meter, LimitOf(Limit::kRpm, 1), At(0)));
  EXPECT_EQ(Admits(meter, LimitOf(Limit::kRpm, 1), {}, At(0)).moment, At(161));
  Use(&meter, Tokens(7), At(0));
  EXPECT_EQ(meter.recorded.totals.last_used_at, At(100.25));
}

TEST(Clock, IsMovedByUseBy429sAndBySelections) {
  Meter meter = KeyMeter();
  Use(&meter, {}, At(1));
  EXPECT_EQ(MeterSecond(meter, 0), SecondOf(At(1)));
  Cool(&meter, At(3), At(2));
  EXPECT_EQ(MeterSecond(meter, 0), SecondOf(At(2)));
  Select(&meter, {}, At(3));
  EXPECT_EQ(MeterSecond(meter, 0), SecondOf(At(3)));
}

TEST(Clock, ThatACrashToreIsNone) {
  Meter meter = KeyMeter();
  for (TimeUs torn : {TimeUs{-1}, TimeUs{INT64_MIN}, TimeUs{INT64_MAX}, kLatestTime + 1}) {
    meter.reserved.last_selected_at = torn;
    EXPECT_EQ(MeterNow(meter, kStart), kStart);
  }
}

TEST(Clock, ThatWasFarAheadIsTold) {
  Meter meter = KeyMeter();
  Use(&meter, {}, At(600));
  EXPECT_FALSE(ClockWasWrong(meter, At(0)));
  EXPECT_TRUE(ClockWasWrong(meter, At(0) - 1));
  Select(&meter, {}, At(700));
  EXPECT_TRUE(ClockWasWrong(meter, At(0)));
  EXPECT_FALSE(ClockWasWrong(meter, At(100)));
}

}  // namespace
}  // namespace keypool
