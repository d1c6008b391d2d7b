// settling_test.cpp - reservations and what becomes of them, blocks, and the upkeep of a meter.
#include "core/quota/settling.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "meters.h"

namespace keypool {
namespace {

TEST(Reserve, ChangesTheReservedHalfOnly) {
  Meter meter = KeyMeter();
  Use(&meter, Tokens(3), kStart);
  RecordedMeter before = meter.recorded;
  Select(&meter, {100, 20, 10, 5}, At(1));
  EXPECT_EQ(memcmp(&before, &meter.recorded, sizeof(before)), 0);
  EXPECT_EQ(meter.reserved.last_selected_at, At(1));
  EXPECT_EQ(meter.reserved.selections, 1);
}

TEST(Reserve, NumbersTheSelectionsOfAKeysSecond) {
  Meter meter = KeyMeter();
  for (uint32_t i = 0; i < 70; ++i)
    EXPECT_EQ(Select(&meter, {}, At(0)).sequence, std::min<uint32_t>(i, kTrackedSelections));
  EXPECT_EQ(Select(&meter, {}, At(1)).sequence, 0u);
  EXPECT_EQ(Select(&meter, {}, At(1), false).sequence, 0u) << "a quota does not number";
  EXPECT_EQ(Select(&meter, {}, At(1)).sequence, 1u);
}

TEST(Reserve, SetsTheTurnIfThereIsOne) {
  Meter meter = KeyMeter();
  Reserve(&meter, {}, {}, true, 77, kStart);
  EXPECT_EQ(meter.reserved.turn, 77);
  Reserve(&meter, {}, {}, true, 0, kStart);
  EXPECT_EQ(meter.reserved.turn, 77);
}

TEST(Reserve, CanBeLogged) {
  Meter meter = KeyMeter(), standby = meter;
  Reserve(&meter, {}, {100, 20, 10, 5}, true, 77, At(1));
  MeterEdit edit(&meter);
  NoteReservation(&edit, At(1));
  const ChangedBytes *changes;
  int count = edit.Finish(&changes);
  EXPECT_LE(count, 3);
  for (int i = 0; i < count; ++i)
    memcpy(reinterpret_cast<char *>(&standby) + changes[i].offset, reinterpret_cast<char *>(&meter) + changes[i].offset,
           changes[i].length);
  standby.reserved.selections = meter.reserved.selections;
  EXPECT_EQ(memcmp(&standby, &meter, sizeof(meter)), 0);
}

TEST(CommonNow, IsTheLatestOfAllClocks) {
  Meter key = KeyMeter(), quota = KeyMeter(), other = KeyMeter();
  Select(&quota, {}, At(5));
  Use(&other, {}, At(3));
  const Meter *meters[] = {&key, &quota, &other};
  EXPECT_EQ(CommonNow(meters, 3, At(1)), At(5));
  EXPECT_EQ(CommonNow(meters, 3, At(6)), At(6));
  EXPECT_EQ(CommonNow(meters, 1, At(1)), At(1));
}

TEST(SettlingNow, IsNotBeforeTheLeaseUnlessTheClockWasWrongThen) {
  Meter key = KeyMeter();
  const Meter *meters[] = {&key};
  EXPECT_EQ(SettlingNow(meters, 1, {SecondOf(At(600)), 0, {}}, At(0)), At(600));
  EXPECT_EQ(SettlingNow(meters, 1, {SecondOf(At(601)), 0, {}}, At(0)), At(0));
  EXPECT_EQ(SettlingNow(meters, 1, {SecondOf(At(-5)), 0, {}}, At(0)), At(0));
}

TEST(Settling, OnceCountsOnce) {
  Meter meter = KeyMeter();
  Reservation lease = Select(&meter, Tokens(500), At(0));
  EXPECT_EQ(Record(&meter, lease, Tokens(10), At(1)), Settled::kNow);
  Meter before = meter;
  EXPECT_EQ(Record(&meter, lease, Tokens(10), At(2)), Settled::kBefore);
  EXPECT_EQ(Release(&meter, lease, At(3)), Settled::kBefore);
  EXPECT_EQ(memcmp(&before, &meter, sizeof(meter)), 0) << "nothing is changed";
}

TEST(Settling, OnceCountsOnceAfterACrashToo) {
  Meter meter = KeyMeter();
  Reservation lease = Select(&meter, Tokens(500), At(0)), released = Select(&meter, {}, At(0));
  Record(&meter, lease, Tokens(10), At(1));
  Release(&meter, released, At(1));
  meter.reserved = {};
  EXPECT_EQ(Record(&meter, lease, Tokens(10), At(2)), Settled::kBefore);
  EXPECT_EQ(Record(&meter, released, Tokens(10), At(2)), Settled::kBefore) << "a release is logged";
  EXPECT_EQ(Record(&meter, lease, Tokens(10), At(63.9)), Settled::kBefore);
  EXPECT_EQ(meter.recorded.totals.requests, 1);
}

TEST(Settling, IsKnownForSixtyFourSeconds) {
  Meter meter = KeyMeter();
  Reservation lease = Select(&meter, Tokens(500), At(0));
  EXPECT_EQ(Record(&meter, lease, {}, At(0)), Settled::kNow);
  EXPECT_EQ(Record(&meter, lease, {}, At(63)), Settled::kBefore);
  EXPECT_EQ(Record(&meter, lease, {}, At(64)), Settled::kTooOld);
  EXPECT_EQ(meter.recorded.totals.requests, 2) << "beyond, a repeat may count twice";
}

TEST(Settling, OfALeaseThatACrashForgotCountsInItsSecond) {
  Meter meter = KeyMeter();
  Reservation lease = Select(&meter, Tokens(500), At(0));
  meter.reserved = {};
  EXPECT_EQ(Record(&meter, lease, Tokens(10), At(30)), Settled::kNow);
  EXPECT_EQ(UseInWindow(meter, At(60)).requests, 1);
  EXPECT_EQ(UseInWindow(meter, At(61)).requests, 0);
}

TEST(Settling, AfterACrashAndAStepBackMovesTheClockToTheLease) {
  Meter meter = KeyMeter();
  Reservation lease = Select(&meter, {}, At(30));
  meter.reserved = {};
  EXPECT_EQ(Record(&meter, lease, {}, At(0)), Settled::kNow);
  EXPECT_EQ(MeterNow(meter, At(0)), At(30));
  EXPECT_EQ(Record(&meter, lease, {}, At(0)), Settled::kBefore);
}

TEST(Settling, OfALeaseFromAheadCountsNow) {
  Meter meter = KeyMeter();
  Reservation lease = {SecondOf(At(3600)), 0, {}};
  EXPECT_EQ(Record(&meter, lease, {}, At(0)), Settled::kTooOld);
  EXPECT_EQ(UseInWindow(meter, At(0)).requests, 1);
  EXPECT_EQ(MeterNow(meter, At(0)), At(0));
}

TEST(Settling, NumbersWhatWasSettledBeforeACrashDoNotComeAgain) {
  Meter meter = KeyMeter();
  Select(&meter, {}, At(0));
  Reservation second = Select(&meter, {}, At(0));
  Record(&meter, second, {}, At(0));
  meter.reserved = {};
  Reservation again = Select(&meter, {}, At(0));
  EXPECT_EQ(again.sequence, 2u);
  EXPECT_EQ(Record(&meter, again, {}, At(0)), Settled::kNow);
}

TEST(Settling, BeyondTheTrackedSelectionsOfASecondCountsEachTime) {
  Meter meter = KeyMeter();
  std::vector<Reservation> all;
  for (int i = 0; i < 100; ++i) all.push_back(Select(&meter, Tokens(1), kStart));
  for (const Reservation &lease : all) EXPECT_EQ(Release(&meter, lease, kStart), Settled::kNow);
  EXPECT_EQ(UseInWindow(meter, kStart).requests, 0);
  EXPECT_EQ(UseInWindow(meter, kStart).tokens, 0);
  for (const Reservation &lease : all)
    EXPECT_EQ(Release(&meter, lease, kStart), lease.sequence < kTrackedSelections ? Settled::kBefore : Settled::kNow);
}

TEST(Settling, FreesThePlaceOfACallThatTookLong) {
  Meter meter = KeyMeter();
  Reservation lease = Select(&meter, {100, 0, 0, 7}, At(0)), other = Select(&meter, {30, 0, 0, 2}, At(1));
  EXPECT_EQ(Record(&meter, lease, Tokens(90), At(600)), Settled::kTooOld);
  OpenCalls open = CallsInFlight(meter, At(600));
  EXPECT_EQ(open.calls, 1);
  EXPECT_EQ(open.tokens, 30);
  EXPECT_EQ(open.cost, 2);
  Record(&meter, other, {}, At(20 * 60));
  EXPECT_EQ(CallsInFlight(meter, At(20 * 60)).calls, 0);
}

TEST(Settling, InAQuotaTakesOutWhatItsRuleCounts) {
  Meter quota = FreshMeter(kSecondSlots, kDefaultCallTimeout);
  CountRule rule = {Counts::kInput, 1};
  Reservation first = Select(&quota, {100, 30, 20, 4}, At(0), false, rule);
  Select(&quota, {10, 3, 2, 1}, At(0), false, rule);
  EXPECT_EQ(UseInWindow(quota, At(0)).tokens, 55);
  MeterEdit edit(&quota);
  CloseInQuota(&edit, rule, first);
  EXPECT_EQ(UseInWindow(quota, At(1)).tokens, 5);
  EXPECT_EQ(UseInWindow(quota, At(1)).output, 3);
  EXPECT_EQ(CallsInFlight(quota, At(1)).cost, 1);
}

TEST(Settling, InAQuotaWhoseCountsHaveChangedLeavesNothingWhenNothingIsOpen) {
  Meter quota = FreshMeter(kSecondSlots, kDefaultCallTimeout);
  Reservation lease = Select(&quota, {100, 30, 20, 0}, At(0), false, {});
  MeterEdit edit(&quota);
  CloseInQuota(&edit, {Counts::kInput, 1}, lease);
  EXPECT_EQ(UseInWindow(quota, At(1)).tokens, 0);
  Select(&quota, {100, 30, 20, 0}, At(1), false, {Counts::kInput, 1});
  Select(&quota, {100, 30, 20, 0}, At(1), false, {Counts::kInput, 1});
  CloseInQuota(&edit, {Counts::kTokens, 50}, {SecondOf(At(1)), 0, {100, 30, 20, 0}});
  EXPECT_EQ(UseInWindow(quota, At(1)).tokens, 0) << "not below zero";
  EXPECT_EQ(UseInWindow(quota, At(1)).open, 1);
}

bool Take(Meter *key, Reservation *reservation, TimeUs now) {
  MeterEdit edit(key);
  return TakeOldest(&edit, reservation, MeterNow(*key, now));
}

TEST(TakeOldest, TakesAnEqualShareOfTheOldestSecond) {
  Meter meter = KeyMeter();
  Select(&meter, {100, 10, 0, 4}, At(0));
  Select(&meter, {200, 30, 0, 8}, At(0));
  Select(&meter, {500, 50, 0, 16}, At(1));
  Reservation taken;
  ASSERT_TRUE(Take(&meter, &taken, At(2)));
  EXPECT_EQ(taken.second, SecondOf(At(0)));
  EXPECT_EQ(taken.estimates.tokens, 150);
  EXPECT_EQ(taken.estimates.output, 20);
  EXPECT_EQ(UseInWindow(meter, At(2)).tokens, 650);
  ASSERT_TRUE(Take(&meter, &taken, At(2)));
  EXPECT_EQ(UseInWindow(meter, At(2)).tokens, 500);
  ASSERT_TRUE(Take(&meter, &taken, At(2)));
  EXPECT_EQ(taken.second, SecondOf(At(1)));
  EXPECT_FALSE(Take(&meter, &taken, At(2)));
  EXPECT_EQ(CallsInFlight(meter, At(2)).calls, 0);
  EXPECT_EQ(CallsInFlight(meter, At(2)).tokens, 0);
  EXPECT_EQ(CallsInFlight(meter, At(2)).cost, 0);
}

TEST(TakeOldest, TakesACallThatHasLeftTheRing) {
  Meter meter = KeyMeter();
  Select(&meter, {100, 10, 0, 4}, At(0));
  Select(&meter, {300, 10, 0, 6}, At(2));
  Select(&meter, {500, 10, 0, 9}, At(200));
  Reservation taken;
  ASSERT_TRUE(Take(&meter, &taken, At(200)));
  EXPECT_EQ(taken.estimates.tokens, 200);
  EXPECT_EQ(taken.estimates.cost, 5);
  EXPECT_GT(SecondOf(At(200)) - taken.second, kWindowSlots) << "its request has left the window";
  ASSERT_TRUE(Take(&meter, &taken, At(200)));
  EXPECT_EQ(CallsInFlight(meter, At(200)).calls, 1);
  ASSERT_TRUE(Take(&meter, &taken, At(200)));
  EXPECT_EQ(taken.second, SecondOf(At(200)));
  EXPECT_FALSE(Take(&meter, &taken, At(200)));
  Select(&meter, {}, At(300));
  EXPECT_FALSE(Take(&meter, &taken, At(300 + 16 * 68))) << "it was given up";
}

TEST(TakeOldest, FindsTheOlderOfTwoInOneSlotOfOpenCalls) {
  Meter meter = FreshMeter(kSecondSlots, kMaxCallTimeout);
  Select(&meter, Tokens(100), At(0));
  Select(&meter, Tokens(300), At(100));
  Reservation taken;
  ASSERT_TRUE(Take(&meter, &taken, At(110)));
  EXPECT_LE(taken.second, SecondOf(At(110)) - 64);
  EXPECT_EQ(UseInWindow(meter, At(110)).open, 1);
  EXPECT_EQ(CallsInFlight(meter, At(110)).calls, 1);
}

// A crash may leave more calls in a slot of open calls than the ring knows of.
TEST(TakeOldest, TakesWhatIsOpenNowThoughACrashLeftMoreInItsSlotOfOpenCalls) {
  Meter meter = KeyMeter();
  Second width = OpenSlotWidth(meter);
  TimeUs start = StartOf((SecondOf(At(0)) / width + 1) * width);
  for (TimeUs now : {start, start + 10 * kMicrosPerSecond, start + 60 * kMicrosPerSecond}) {
    Select(&meter, Tokens(100), now);
    meter.reserved.open[OpenIndex(SecondOf(now) / width)].calls += 3;
    Reservation taken;
    ASSERT_TRUE(Take(&meter, &taken, now));
    EXPECT_EQ(taken.second, SecondOf(now));
    EXPECT_EQ(UseInWindow(meter, now).open, 0);
  }
}

TEST(TakeOldest, LosesNoCallThatIsSettledByItsLeaseLater) {
  Meter meter = KeyMeter();
  Reservation lease = Select(&meter, Tokens(100), At(0));
  Reservation taken;
  ASSERT_TRUE(Take(&meter, &taken, At(1)));
  EXPECT_EQ(Record(&meter, lease, Tokens(90), At(2)), Settled::kNow);
  EXPECT_EQ(meter.recorded.totals.tokens, 90);
}

TEST(TakeOldest, TakesAShareOutOfQuotas) {
  Meter quota = FreshMeter(kHourSlots, kDefaultCallTimeout);
  Select(&quota, {100, 0, 50, 4}, At(0), false, {Counts::kUncached, 1});
  Select(&quota, {200, 0, 50, 8}, At(0), false, {Counts::kUncached, 1});
  MeterEdit edit(&quota);
  CloseShareInQuota(&edit, SecondOf(At(0)));
  EXPECT_EQ(CallsInFlight(quota, At(1)).calls, 1);
  EXPECT_EQ(CallsInFlight(quota, At(1)).tokens, 100);
  EXPECT_EQ(CallsInFlight(quota, At(1)).cost, 6);
  CloseShareInQuota(&edit, SecondOf(At(0)));
  CloseShareInQuota(&edit, SecondOf(At(0)));
  EXPECT_EQ(CallsInFlight(quota, At(1)).calls, 0);
}

TEST(Counting, GoesIntoAllThatIsCounted) {
  Meter meter = KeyMeter();
  Use(&meter, {100, 30, 20, 7}, At(1), {Counts::kInput, 1});
  const Totals &totals = meter.recorded.totals;
  EXPECT_EQ(totals.requests, 1);
  EXPECT_EQ(totals.tokens, 100);
  EXPECT_EQ(totals.output, 30);
  EXPECT_EQ(totals.cached, 20);
  EXPECT_EQ(totals.cost, 7);
  EXPECT_EQ(totals.last_used_at, At(1));
  EXPECT_EQ(UseInWindow(meter, At(1)).tokens, 50);
  EXPECT_EQ(UseInWindow(meter, At(1)).output, 30);
}

TEST(Counting, OfALeaseThatIsTooOldLeavesTheWindowAlone) {
  Meter meter = KeyMeter();
  MeterEdit edit(&meter);
  CountInTotals(&edit, {100, 0, 0, 7}, kFarEnds, At(0));
  EXPECT_EQ(UseInWindow(meter, At(0)).requests, 0);
  EXPECT_EQ(meter.recorded.totals.tokens, 100);
  EXPECT_EQ(UseInPeriod(meter, meter.recorded.month, {}, At(0)).cost, 7) << "a budget is spent all the same";
}

TEST(Counting, DoesNotOverflow) {
  Meter meter = KeyMeter();
  memset(&meter.recorded.totals, 0x7f, sizeof(Totals));
  meter.recorded.totals.last_used_at = kStart;
  meter.recorded.totals = {kStart, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX};
  meter.reserved.releases = meter.reserved.selections = meter.reserved.rate_limits = INT64_MAX;
  meter.reserved.repeats = INT64_MAX;
  Use(&meter, {kMaxTokens, 0, 0, kMaxCost}, kStart);
  Select(&meter, {}, kStart);
  Cool(&meter, kStart + 1, kStart);
  MeterEdit edit(&meter);
  CountRelease(&edit);
  CountRepeat(&edit);
  EXPECT_EQ(meter.reserved.repeats, INT64_MAX);
  EXPECT_EQ(meter.recorded.totals.cost, INT64_MAX);
  EXPECT_EQ(meter.reserved.releases, INT64_MAX);
  EXPECT_EQ(meter.reserved.selections, INT64_MAX);
}

TEST(Cooldown, TheLaterDeadlineStands) {
  Meter meter = KeyMeter();
  EXPECT_EQ(Cool(&meter, At(60), At(0)), At(60));
  EXPECT_EQ(Cool(&meter, At(11), At(1)), At(60));
  EXPECT_EQ(Cool(&meter, At(61), At(1)), At(61));
  EXPECT_FALSE(Serves(meter, {}, At(61) - 1));
  EXPECT_TRUE(Serves(meter, {}, At(61)));
  EXPECT_EQ(meter.recorded.last_429_at, At(1));
  EXPECT_EQ(meter.reserved.rate_limits, 3);
}

TEST(Cooldown, EndsWhenItIsCleared) {
  Meter meter = KeyMeter();
  Cool(&meter, At(60), At(0));
  MeterEdit edit(&meter);
  BlockModel(&edit, 5, At(60), At(0));
  meter.recorded.breaker = {At(60), At(0), 3, 2, 1, 60};
  ClearBlocks(&edit, At(1));
  EXPECT_TRUE(Admit(meter, {}, {{}, 5, At(0)}).admitted());
  EXPECT_EQ(meter.recorded.breaker.openings, 0);
}

TEST(Cooldown, OfModelsIsOfEightAtOnceAndThenOfTheKey) {
  Meter meter = KeyMeter();
  MeterEdit edit(&meter);
  auto blocked = [&](uint32_t model, TimeUs now) { return !Admit(meter, {}, {{}, model, now}).admitted(); };
  for (uint32_t model = 1; model <= 8; ++model)
    EXPECT_EQ(BlockModel(&edit, model, At(10 + model), At(0)), At(10 + model));
  for (uint32_t model = 1; model <= 8; ++model) EXPECT_TRUE(blocked(model, At(10)));
  EXPECT_FALSE(blocked(9, At(0)));
  EXPECT_EQ(BlockModel(&edit, 3, At(2), At(1)), At(13)) << "the later deadline stands";
  EXPECT_EQ(BlockModel(&edit, 3, At(30), At(1)), At(30));
  EXPECT_EQ(BlockModel(&edit, 9, At(12), At(1)), At(12));
  EXPECT_TRUE(blocked(77, At(1))) << "the ninth blocks the key";
  EXPECT_FALSE(blocked(77, At(12)));
  EXPECT_EQ(BlockModel(&edit, 9, At(50), At(12)), At(50)) << "a place is free again";
  EXPECT_FALSE(blocked(77, At(12)));
  EXPECT_TRUE(blocked(9, At(12)));
  EXPECT_EQ(meter.reserved.rate_limits, 12);
}

}  // namespace
}  // namespace keypool
