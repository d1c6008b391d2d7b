// observed_use_test.cpp - correcting a meter by what the provider says is used of a limit.
#include "core/quota/observed_use.h"

#include <gtest/gtest.h>

#include "meters.h"

namespace keypool {
namespace {

void Observe(Meter *meter, Limit limit, int64_t used, TimeUs written, TimeUs now) {
  MeterEdit edit(meter);
  RaiseToObserved(&edit, {0, limit, used, SecondOf(written)}, MeterNow(*meter, now));
}

TEST(ObservedUse, RaisesTheWindowAndNothingElse) {
  Meter meter = KeyMeter();
  Use(&meter, {100, 40, 0, 0}, At(0));
  Meter before = meter;
  Observe(&meter, Limit::kRpm, 7, At(1), At(2));
  Observe(&meter, Limit::kTpm, 250, At(1), At(2));
  Observe(&meter, Limit::kOutputTpm, 90, At(1), At(2));
  WindowUse use = UseInWindow(meter, At(2));
  EXPECT_EQ(use.requests, 7);
  EXPECT_EQ(use.tokens, 250);
  EXPECT_EQ(use.output, 90);
  EXPECT_EQ(memcmp(&before.recorded.totals, &meter.recorded.totals, sizeof(Totals)), 0);
  EXPECT_EQ(memcmp(&before.recorded.day, &meter.recorded.day, sizeof(Period)), 0);
  EXPECT_EQ(memcmp(&before.recorded.history, &meter.recorded.history, sizeof(History)), 0);
  EXPECT_EQ(UseInWindow(meter, At(61)).requests, 6) << "its own has left";
  EXPECT_EQ(UseInWindow(meter, At(62)).requests, 0) << "it counts in the second in which it was said";
}

TEST(ObservedUse, IsCountedOnce) {
  Meter meter = KeyMeter();
  for (int i = 0; i < 5; ++i) Observe(&meter, Limit::kRpm, 20, At(1), At(1 + i / 2.0));
  EXPECT_EQ(UseInWindow(meter, At(3)).requests, 20);
  Observe(&meter, Limit::kRpm, 12, At(3), At(3));
  EXPECT_EQ(UseInWindow(meter, At(3)).requests, 20) << "a count is never lowered";
}

TEST(ObservedUse, TakesOpenCallsForCallsThatTheProviderHasSeen) {
  Meter meter = KeyMeter();
  for (int i = 0; i < 8; ++i) Select(&meter, Tokens(50), At(1));
  Observe(&meter, Limit::kRpm, 8, At(2), At(2));
  Observe(&meter, Limit::kTpm, 400, At(2), At(2));
  EXPECT_EQ(UseInWindow(meter, At(2)).requests, 8);
  EXPECT_EQ(UseInWindow(meter, At(2)).tokens, 400);
}

TEST(ObservedUse, OfBeforeTheWindowCountsWhatWasInItThen) {
  Meter meter = KeyMeter();
  for (int i = 0; i < 10; ++i) Use(&meter, {}, At(0));
  Observe(&meter, Limit::kRpm, 10, At(60), At(63));
  EXPECT_EQ(UseInWindow(meter, At(63)).requests, 0) << "the ten were the provider's, too";
}

TEST(ObservedUse, ThatIsOldOrOfTheFutureChangesNothing) {
  Meter meter = KeyMeter();
  Use(&meter, {}, At(100));
  Meter before = meter;
  for (int age = 4; age <= 60; ++age) Observe(&meter, Limit::kRpm, 500, At(100 - age), At(100));
  Observe(&meter, Limit::kRpm, 500, At(101), At(100));
  EXPECT_EQ(memcmp(&before, &meter, sizeof(Meter)), 0);
  Observe(&meter, Limit::kRpm, 500, At(97), At(100));
  EXPECT_EQ(UseInWindow(meter, At(100)).requests, 500);
}

TEST(ObservedUse, ChangesNoMeterOfHours) {
  Meter meter = FreshMeter(kHourSlots, kDefaultCallTimeout);
  Use(&meter, {}, At(0));
  Meter before = meter;
  Observe(&meter, Limit::kRpm, 500, At(0), At(0));
  EXPECT_EQ(memcmp(&before, &meter, sizeof(Meter)), 0);
}

TEST(ObservedUse, AnyNumberFits) {
  Meter meter = KeyMeter();
  Observe(&meter, Limit::kTpm, std::numeric_limits<int64_t>::max(), At(1), At(1));
  EXPECT_EQ(UseInWindow(meter, At(1)).tokens, kMaxSlotAmount);
  EXPECT_FALSE(Serves(meter, LimitOf(Limit::kTpm, 1000), At(1)));
}

TEST(ObservedUse, KeepsOutUntilMoreIsLeft) {
  Meter meter = KeyMeter();
  MeterEdit edit(&meter);
  KeepOut(&edit, 0, At(20), At(5));
  KeepOut(&edit, 0, At(10), At(5));
  EXPECT_EQ(Admits(meter, {}, {}, At(5)).moment, At(20));
  EXPECT_EQ(meter.recorded.last_429_at, 0);
}

}  // namespace
}  // namespace keypool
