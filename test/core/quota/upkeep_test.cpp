// upkeep_test.cpp - changes of a meter that no call makes: calls dropped, widths configured, a clock that was wrong.
#include <gtest/gtest.h>

#include <vector>

#include "core/quota/usage.h"
#include "meters.h"

namespace keypool {
namespace {

TEST(Upkeep, DropsWhatOpenCallsHold) {
  Meter meter = KeyMeter();
  Reservation lease = Select(&meter, {100, 10, 0, 5}, At(0));
  Select(&meter, {100, 10, 0, 5}, At(100));
  MeterEdit edit(&meter);
  DropOpenCalls(&edit);
  EXPECT_EQ(CallsInFlight(meter, At(100)).calls, 0);
  EXPECT_EQ(UseInWindow(meter, At(100)).requests, 0);
  EXPECT_EQ(Select(&meter, {}, At(100)).sequence, 1u) << "numbers do not come again";
  EXPECT_NE(Record(&meter, lease, Tokens(9), At(101)), Settled::kBefore);
  EXPECT_EQ(meter.recorded.totals.tokens, 9);
}

Limits QuotaOf(Limit limit, int64_t max, bool rolling = false) {
  Limits limits = LimitOf(limit, max);
  limits.rolling_day = rolling;
  return limits;
}

void ConfigureWidth(Meter *meter, uint32_t width) {
  MeterEdit edit(meter);
  Configure(&edit, width, kDefaultCallTimeout);
}

TEST(Upkeep, FillsAWiderRingWithTheLastHour) {
  Meter meter = KeyMeter();
  for (int minute : {0, 50, 119, 120}) Use(&meter, {100, 30, 0, 0}, At(60 * minute + 5));
  ConfigureWidth(&meter, kHourSlots);
  EXPECT_EQ(UseInWindow(meter, At(60 * 120 + 6)).requests, 2) << "not those of more than an hour ago";
  EXPECT_EQ(UseInWindow(meter, At(60 * 120 + 6)).tokens, 200);
  // What came in the minute 119 leaves with it.
  Limits limits = QuotaOf(Limit::kRph, 2);
  EXPECT_EQ(Admits(meter, limits, {}, At(60 * 120 + 6)).moment, At(60 * 180));
  ConfigureWidth(&meter, kDaySlots);
  EXPECT_EQ(UseInWindow(meter, At(60 * 120 + 6)).requests, 2);
  EXPECT_EQ(Admits(meter, QuotaOf(Limit::kRpd, 2, true), {}, At(60 * 120 + 6)).moment,
            At(60 * 120 + 60 * 61 * 24 - 60 * 24));
}

TEST(Upkeep, FillsARingOfSecondsWithTheLastMinute) {
  for (uint32_t width : {kHourSlots, kDaySlots}) {
    Meter meter = FreshMeter(width, kDefaultCallTimeout);
    for (int second : {0, 3540, 3590, 3601}) Use(&meter, {100, 30, 0, 7}, At(second));
    ConfigureWidth(&meter, kSecondSlots);
    WindowUse use = UseInWindow(meter, At(3601));
    EXPECT_EQ(use.requests, 3) << "all of a minute that the window reaches into";
    EXPECT_EQ(use.tokens, 300);
    EXPECT_GE(use.output, 90);
    EXPECT_EQ(UseInWindow(meter, At(3661)).requests, 3);
    EXPECT_EQ(UseInWindow(meter, At(3662)).requests, 0);
  }
}

TEST(Upkeep, ForgetsNoLimitOfAMinuteWhereAWidthIsTriedAndGivenUp) {
  std::minstd_rand random(7);
  for (int round = 0; round < 1000; ++round) {
    Meter meter = KeyMeter();
    TimeUs now = At(random() % 100);
    for (unsigned i = random() % 50; i > 0; --i, now += random() % (3 * kMicrosPerSecond))
      Use(&meter, {static_cast<int64_t>(10 + random() % 100), static_cast<int64_t>(random() % 10), 0, 0}, now);
    WindowUse before = UseInWindow(meter, now);
    ConfigureWidth(&meter, random() % 2 ? kHourSlots : kDaySlots);
    ConfigureWidth(&meter, kSecondSlots);
    WindowUse after = UseInWindow(meter, now);
    ASSERT_GE(after.requests, before.requests);
    ASSERT_GE(after.tokens, before.tokens);
    ASSERT_GE(after.output, before.output);
  }
}

TEST(Upkeep, ChangesNothingWhereNothingIsConfiguredAnew) {
  Meter meter = KeyMeter();
  Use(&meter, Tokens(5), At(0));
  Select(&meter, Tokens(7), At(0));
  MeterEdit same(&meter);
  Configure(&same, kSecondSlots, kDefaultCallTimeout);
  const ChangedBytes *changes;
  EXPECT_EQ(same.Finish(&changes), 0);
}

TEST(Upkeep, KeepsTheOpenCallsOfTheLastMinuteWhenCallTimeoutChanges) {
  Meter meter = KeyMeter();
  Select(&meter, Tokens(7), At(0));
  for (int i = 100; i < 103; ++i) Select(&meter, Tokens(1), At(i));
  EXPECT_EQ(CallsInFlight(meter, At(103)).calls, 4);
  MeterEdit timeout(&meter);
  Configure(&timeout, kSecondSlots, 60);
  OpenCalls open = CallsInFlight(meter, At(103));
  EXPECT_EQ(open.calls, 3);
  EXPECT_EQ(open.tokens, 3);
  EXPECT_EQ(CallsInFlight(meter, At(103 + 64)).calls, 0);
}

constexpr PeriodEnds kEnds = {SecondOf(At(1000)), SecondOf(At(5000))};

TEST(MoveToNow, MovesWhatTheWindowHolds) {
  for (uint32_t width : {kSecondSlots, kHourSlots, kDaySlots}) {
    Meter meter = FreshMeter(width, kDefaultCallTimeout);
    TimeUs ahead = At(86400.0 * 365);
    PeriodEnds later = {SecondOf(ahead) + 1000, SecondOf(ahead) + 5000};
    for (int i = 0; i < 10; ++i) Use(&meter, {10, 2, 0, 3}, ahead + i * kMicrosPerSecond, {}, later);
    for (int i = 0; i < 5; ++i) Select(&meter, {7, 1, 0, 2}, ahead + i * kMicrosPerSecond, false);
    ASSERT_TRUE(ClockWasWrong(meter, At(0)));
    WindowUse before = UseInWindow(meter, ahead + 9 * kMicrosPerSecond);
    MeterEdit edit(&meter);
    MoveToNow(&edit, kEnds, 3600 * kMicrosPerSecond, At(0));
    EXPECT_FALSE(ClockWasWrong(meter, At(0)));
    EXPECT_EQ(MeterNow(meter, At(0)), At(0));
    WindowUse after = UseInWindow(meter, At(0));
    EXPECT_EQ(after.requests, before.requests);
    EXPECT_EQ(after.tokens, before.tokens);
    EXPECT_EQ(after.open, before.open);
    EXPECT_EQ(CallsInFlight(meter, At(0)).cost, 10);
    EXPECT_EQ(UseInPeriod(meter, meter.recorded.day, {}, At(0)).cost, 30);
    EXPECT_EQ(UseInPeriod(meter, meter.recorded.day, {}, At(1000)).cost, 0);
    WindowUse later_use = UseInWindow(meter, At(61.0 * width));
    EXPECT_EQ(later_use.requests, later_use.open) << "all that was recorded leaves together";
    if (width != kSecondSlots) {
      EXPECT_EQ(CostInWindow(meter, At(0)), 40);
    }
  }
}

TEST(MoveToNow, CutsBlocksAndMovesTheHistory) {
  Meter meter = KeyMeter();
  Use(&meter, Tokens(5), At(90000));
  Cool(&meter, At(99999), At(90060));
  meter.recorded.breaker = {At(99999), At(90060), 1, 1, 1, 60};
  MeterEdit block(&meter);
  BlockModel(&block, 5, At(99999), At(90061));
  MeterEdit edit(&meter);
  MoveToNow(&edit, kEnds, 100 * kMicrosPerSecond, At(0));
  EXPECT_EQ(meter.recorded.blocked_until, At(100));
  EXPECT_EQ(meter.recorded.breaker.open_until, At(100));
  EXPECT_EQ(Admit(meter, {}, {{}, 5, At(0)}).moment, At(100));
  UsageSlot use[kMaxUsage];
  ASSERT_EQ(UsageBy(meter, Span::kMinute, 60, At(0), use), 2);
  EXPECT_EQ(use[0].number, MinuteOf(At(0)));
  EXPECT_EQ(use[0].rate_limited, 2u);
  EXPECT_EQ(use[1].tokens, 5);
}

TEST(MoveToNow, KeepsTheRecordedHalfWhereOnlyAHintWasWrong) {
  Meter meter = KeyMeter();
  Use(&meter, Tokens(5), At(0));
  meter.reserved.last_selected_at = At(900000);
  MeterEdit edit(&meter);
  MoveToNow(&edit, kEnds, kMicrosPerSecond, At(1));
  EXPECT_EQ(UseInWindow(meter, At(60)).tokens, 5);
  EXPECT_EQ(UseInWindow(meter, At(61)).tokens, 0);
}

// The clock goes far ahead now and then, and is set right some minutes later. In real time the limit holds in every 60
// seconds in which the clock did not go ahead, and nobody waits for longer than the limits and blocks of real time say.
TEST(MoveToNow, KeepsLimitsInRealTimeAndLetsNobodyWaitForAYear) {
  std::mt19937 random(121);
  Meter meter = KeyMeter();
  Limits limits = LimitOf(Limit::kRpm, 7);
  limits.of(Limit::kInFlight) = 100;
  std::vector<TimeUs> selected, jumps;
  TimeUs real = kStart, ahead = 0;
  for (int step = 0; step < 100000; ++step) {
    real += static_cast<TimeUs>(random() % 4000000);
    if (ahead == 0 && random() % 300 == 0) {
      ahead = static_cast<TimeUs>(700 + random() % 40000000) * kMicrosPerSecond;
      jumps.push_back(real);
    } else if (ahead != 0 && random() % 50 == 0) {
      ahead = 0;
    }
    TimeUs now = real + ahead;
    PeriodEnds ends = {SecondOf(now) + 1000, SecondOf(now) + 5000};
    if (ClockWasWrong(meter, now)) {
      MeterEdit edit(&meter);
      MoveToNow(&edit, ends, 3600 * kMicrosPerSecond, now);
      ASSERT_EQ(MeterNow(meter, now), now);
    }
    Admission admission = Admits(meter, limits, {}, now);
    if (!admission.admitted()) {
      ASSERT_LE(admission.moment - MeterNow(meter, now), 61 * kMicrosPerSecond);
      continue;
    }
    Reservation lease = Select(&meter, {}, now);
    if (random() % 2) Record(&meter, lease, Tokens(5), now, ends);
    selected.push_back(real);
  }
  ASSERT_GT(jumps.size(), 100u);
  for (size_t i = 7, jump = 0; i < selected.size(); ++i) {
    while (jump < jumps.size() && jumps[jump] <= selected[i - 7]) ++jump;
    bool jumped = jump < jumps.size() && jumps[jump] <= selected[i];
    if (!jumped) {
      ASSERT_GT(selected[i] - selected[i - 7], 60 * kMicrosPerSecond) << i;
    }
  }
}

}  // namespace
}  // namespace keypool
