// admission_test.cpp - whether a request is served, what is in its way, and until when.
#include "core/quota/admission.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "meters.h"

namespace keypool {
namespace {

TEST(Admission, IsOfExactlyTheLimit) {
  Meter meter = KeyMeter();
  int selected = 0;
  for (; Serves(meter, LimitOf(Limit::kRpm, 10), kStart) && selected < 100; ++selected) Select(&meter, {}, kStart);
  EXPECT_EQ(selected, 10);
}

TEST(Admission, WithoutLimitsIsOfAnything) {
  Meter meter = KeyMeter();
  for (int i = 0; i < 3000; ++i) Select(&meter, Tokens(1000), kStart);
  EXPECT_TRUE(Admits(meter, {}, Tokens(kMaxTokens), kStart).admitted());
}

TEST(Admission, NeedsTokensToBeBelowTheLimitAndToFit) {
  Meter meter = KeyMeter();
  Limits limits = LimitOf(Limit::kTpm, 1000);
  Select(&meter, Tokens(900), kStart);
  EXPECT_TRUE(Admits(meter, limits, Tokens(100), kStart).admitted());
  EXPECT_FALSE(Admits(meter, limits, Tokens(101), kStart).admitted());
  Select(&meter, Tokens(100), kStart);
  EXPECT_FALSE(Serves(meter, limits, kStart));
  EXPECT_EQ(Admits(meter, limits, {}, kStart).limit, Limit::kTpm);
}

TEST(Admission, CountsOutputApart) {
  Meter meter = KeyMeter();
  Limits limits = LimitOf(Limit::kOutputTpm, 100);
  Select(&meter, {5000, 90, 0, 0}, kStart);
  EXPECT_TRUE(Admits(meter, limits, {5000, 10, 0, 0}, kStart).admitted());
  Admission refused = Admits(meter, limits, {5000, 11, 0, 0}, kStart);
  EXPECT_EQ(refused.obstacle, Obstacle::kLimit);
  EXPECT_EQ(refused.limit, Limit::kOutputTpm);
  EXPECT_EQ(refused.moment, At(61));
}

TEST(Admission, CountsTokensByTheRule) {
  Meter meter = FreshMeter(kSecondSlots, kDefaultCallTimeout);
  Limits limits = LimitOf(Limit::kTpm, 1000);
  limits.rule = {Counts::kInput, 1};
  Select(&meter, {1000, 300, 200, 0}, kStart, false, limits.rule);
  EXPECT_TRUE(Admits(meter, limits, {10000, 9000, 500, 0}, kStart).admitted()) << "500 and 500";
  EXPECT_FALSE(Admits(meter, limits, {10000, 9000, 499, 0}, kStart).admitted());
}

TEST(Admission, TellsTheFirstSecondThatAdmits) {
  Meter meter = KeyMeter();
  Limits limits = LimitOf(Limit::kTpm, 1000);
  Select(&meter, Tokens(400), At(0));
  Select(&meter, Tokens(400), At(10));
  EXPECT_EQ(Admits(meter, limits, Tokens(300), At(20)).moment, At(61));
  EXPECT_EQ(Admits(meter, limits, Tokens(700), At(20)).moment, At(71));
  EXPECT_FALSE(Admits(meter, limits, Tokens(700), At(71) - 1).admitted());
  EXPECT_TRUE(Admits(meter, limits, Tokens(700), At(71)).admitted());
}

TEST(Admission, IsTheLatestOfCooldownAndLimits) {
  Meter meter = KeyMeter();
  Select(&meter, {}, At(0));
  Cool(&meter, At(30), At(0));
  Admission both = Admits(meter, LimitOf(Limit::kRpm, 1), {}, At(0));
  EXPECT_EQ(both.moment, At(61));
  EXPECT_EQ(both.obstacle, Obstacle::kLimit);
  EXPECT_EQ(Admits(meter, LimitOf(Limit::kRpm, 2), {}, At(0)).moment, At(30));
  Cool(&meter, At(61), At(0));
  both = Admits(meter, LimitOf(Limit::kRpm, 1), {}, At(0));
  EXPECT_EQ(both.moment, At(61));
  EXPECT_EQ(both.obstacle, Obstacle::kCooldown) << "of two that end at the same moment, the cooldown is told";
}

TEST(Admission, WaitsForTheBreaker) {
  Meter meter = KeyMeter();
  meter.recorded.breaker.open_until = At(10);
  meter.recorded.breaker.openings = 1;
  Admission refused = Admits(meter, {}, {}, At(0));
  EXPECT_EQ(refused.obstacle, Obstacle::kBreaker);
  EXPECT_EQ(refused.moment, At(10));
  EXPECT_TRUE(Serves(meter, {}, At(10)));
}

TEST(Admission, OfHoursCountsOpenCallsAndWhatWasUsed) {
  Meter meter = FreshMeter(kHourSlots, 60);
  Limits limits = LimitOf(Limit::kRph, 2);
  limits.of(Limit::kTph) = 1000;
  Use(&meter, Tokens(600), At(30));
  Select(&meter, Tokens(300), At(90), false);
  Admission refused = Admits(meter, limits, {}, At(90));
  EXPECT_EQ(refused.limit, Limit::kRph);
  EXPECT_EQ(refused.moment, StartOf((SecondOf(At(90)) / 4 + 16) * 4)) << "the open call is given up";
  EXPECT_EQ(Admits(meter, LimitOf(Limit::kTph, 1000), Tokens(700), At(90)).moment, At(3660));
  EXPECT_TRUE(Admits(meter, LimitOf(Limit::kTph, 1000), Tokens(700), At(3660)).admitted());
}

TEST(Admission, OfADayEndsWithIt) {
  Meter meter = KeyMeter();
  PeriodEnds ends = {SecondOf(At(5000)), SecondOf(At(90000))};
  Use(&meter, {100, 0, 0, 50}, At(0), {}, ends);
  for (auto [limit, max, last] : {std::tuple{Limit::kRpd, 1, 5000},
                                  {Limit::kTpd, 100, 5000},
                                  {Limit::kCostDay, 50, 5000},
                                  {Limit::kRequestsMonth, 1, 90000},
                                  {Limit::kTokensMonth, 100, 90000},
                                  {Limit::kCostMonth, 50, 90000}}) {
    Admission refused = Admits(meter, LimitOf(limit, max), {}, At(10));
    EXPECT_EQ(refused.limit, limit);
    EXPECT_EQ(refused.moment, At(last));
    EXPECT_EQ(refused.guess, At(last));
    EXPECT_TRUE(Serves(meter, LimitOf(limit, max), At(last)));
    EXPECT_TRUE(Serves(meter, LimitOf(limit, max + 1), At(10)));
  }
}

TEST(Admission, OfADayCountsOpenCalls) {
  Meter meter = KeyMeter();
  Select(&meter, {100, 0, 0, 70}, At(0));
  EXPECT_FALSE(Serves(meter, LimitOf(Limit::kRpd, 1), At(100)));
  EXPECT_FALSE(Admits(meter, LimitOf(Limit::kTokensMonth, 150), Tokens(51), At(100)).admitted());
  EXPECT_FALSE(Admits(meter, LimitOf(Limit::kCostDay, 100), {0, 0, 0, 31}, At(100)).admitted());
  EXPECT_TRUE(Admits(meter, LimitOf(Limit::kCostDay, 100), {0, 0, 0, 30}, At(100)).admitted());
}

TEST(Admission, OfARollingDayIsNeverOverAndAtMostASlotLate) {
  Meter meter = FreshMeter(kDaySlots, kDefaultCallTimeout);
  Limits limits = LimitOf(Limit::kRpd, 1);
  limits.rolling_day = true;
  Use(&meter, {5, 0, 0, 9}, At(100));
  Admission refused = Admits(meter, limits, {}, At(200));
  EXPECT_EQ(refused.moment, At(61.0 * kDaySlots));
  EXPECT_FALSE(Serves(meter, limits, At(86400 + 100)));
  Limits cost = LimitOf(Limit::kCostDay, 10);
  cost.rolling_day = true;
  EXPECT_TRUE(Admits(meter, cost, {0, 0, 0, 1}, At(200)).admitted());
  EXPECT_EQ(Admits(meter, cost, {0, 0, 0, 2}, At(200)).moment, At(61.0 * kDaySlots));
}

TEST(Admission, OfCallsInFlight) {
  Meter meter = KeyMeter();
  Limits limits = LimitOf(Limit::kInFlight, 2);
  Reservation first = Select(&meter, {}, At(0));
  Select(&meter, {}, At(100));
  Admission refused = Admits(meter, limits, {}, At(120));
  EXPECT_EQ(refused.limit, Limit::kInFlight);
  EXPECT_EQ(refused.moment, StartOf((SecondOf(kStart) / 68 + 16) * 68));
  EXPECT_EQ(refused.guess, At(121)) << "nothing was settled: a second";
  Record(&meter, first, {}, At(120));
  EXPECT_TRUE(Serves(meter, limits, At(120)));
}

TEST(Admission, GuessesWhenACallIsSettled) {
  Meter meter = KeyMeter();
  Limits limits = LimitOf(Limit::kInFlight, 1);
  for (int i = 0; i < 600; ++i) Use(&meter, {}, At(i / 10.0));
  Select(&meter, {}, At(60));
  Admission refused = Admits(meter, limits, {}, At(60));
  EXPECT_EQ(refused.guess, At(60.1)) << "one a tenth of a second";
  limits.of(Limit::kRpm) = 601;
  refused = Admits(meter, limits, {}, At(60));
  EXPECT_EQ(refused.limit, Limit::kRpm) << "is in the way for longer than a call that is about to be settled";
  EXPECT_EQ(refused.guess, At(61));
  EXPECT_GT(refused.moment, At(1000));
}

TEST(Admission, WaitsForASlotThatIsFull) {
  Meter meter = KeyMeter();
  for (int i = 0; i < 4; ++i) Select(&meter, Tokens(kMaxTokens), kStart);
  Admission refused = Admits(meter, {}, Tokens(kMaxTokens), kStart);
  EXPECT_EQ(refused.obstacle, Obstacle::kFullSlot);
  EXPECT_EQ(refused.moment, At(1));
  EXPECT_TRUE(Admits(meter, {}, Tokens(kMaxTokens), At(1)).admitted());
  EXPECT_TRUE(Admits(meter, {}, Tokens(1000), kStart).admitted());
  Meter many = KeyMeter();
  for (int i = 0; i < 65535; ++i) Select(&many, {}, kStart);
  EXPECT_EQ(Admits(many, {}, {}, kStart).obstacle, Obstacle::kFullSlot);
}

TEST(Admission, WaitsForASlotOfOpenCallsThatIsFull) {
  Meter meter = KeyMeter();
  int count = 0;
  while (Admits(meter, {}, {0, 0, 0, kMaxCost}, kStart).admitted()) {
    Select(&meter, {0, 0, 0, kMaxCost}, kStart);
    ++count;
  }
  EXPECT_EQ(count, kMaxOpenCost / kMaxCost);
  Admission refused = Admits(meter, {}, {0, 0, 0, kMaxCost}, kStart);
  EXPECT_EQ(refused.obstacle, Obstacle::kFullSlot);
  EXPECT_EQ(refused.moment, StartOf((SecondOf(kStart) / 68 + 1) * 68));
  EXPECT_TRUE(Admits(meter, {}, {0, 0, 0, kMaxCost}, refused.moment).admitted());
}

TEST(Admission, OfLimitsThatASlotCannotHoldTakesAFullSlotForAnyNumber) {
  Meter meter = KeyMeter();
  Limits limits = LimitOf(Limit::kTpm, 100 * kMaxTokens);
  for (int i = 0; i < 4; ++i) Use(&meter, Tokens(kMaxTokens), kStart);
  EXPECT_TRUE(Serves(meter, limits, kStart));
  Use(&meter, Tokens(kMaxTokens), kStart);
  EXPECT_EQ(Admits(meter, limits, {}, kStart).moment, At(61));
  EXPECT_TRUE(Serves(meter, limits, At(61)));
}

// A call that was settled without its lease, and then by it, frees another's place, but not what that has reserved.
TEST(Admission, CountsWhatIsReservedInTheWindowWhateverIsInFlight) {
  Meter meter = KeyMeter();
  Limits limits = LimitOf(Limit::kTpm, 100);
  Reservation first = {SecondOf(At(0)), 0, Tokens(50)};
  first.sequence = Reserve(&meter, {}, first.estimates, true, 0, At(0));
  Reserve(&meter, {}, Tokens(50), true, 0, At(10));
  MeterEdit edit(&meter);
  Reservation taken;
  ASSERT_TRUE(TakeOldest(&edit, &taken, At(11)));
  ASSERT_EQ(SettleOnce(&edit, first, At(11)), Settled::kNow);
  EXPECT_EQ(Admits(meter, limits, Tokens(51), At(11)).moment, At(71));
}

TEST(Admission, OfAModelThatIsBlocked) {
  Meter meter = KeyMeter();
  MeterEdit edit(&meter);
  BlockModel(&edit, 77, At(30), At(0));
  EXPECT_EQ(Admit(meter, {}, {{}, 77, At(0)}).obstacle, Obstacle::kCooldown);
  EXPECT_EQ(Admit(meter, {}, {{}, 77, At(0)}).moment, At(30));
  EXPECT_TRUE(Admit(meter, {}, {{}, 78, At(0)}).admitted());
  EXPECT_TRUE(Admit(meter, {}, {{}, 0, At(0)}).admitted());
  EXPECT_TRUE(Admit(meter, {}, {{}, 77, At(30)}).admitted());
}

// Under demand, from a list of real times: never over in any real interval, and little less than could be.
void CheckBurst(int64_t rpm, int seconds, std::mt19937 *random) {
  Meter meter = KeyMeter();
  Limits limits = LimitOf(Limit::kRpm, rpm);
  limits.burst_seconds = static_cast<uint8_t>(seconds);
  size_t share = static_cast<size_t>((rpm * seconds + 59) / 60);
  std::vector<TimeUs> selected;
  TimeUs now = kStart;
  while (now < At(1300)) {
    Admission admission = Admits(meter, limits, {}, now);
    if (!admission.admitted()) {
      ASSERT_FALSE(Serves(meter, limits, admission.moment - 1));
      ASSERT_TRUE(Serves(meter, limits, admission.moment));
      now = admission.moment;
      continue;
    }
    Reservation reservation = Select(&meter, {}, now);
    if ((*random)() % 2) Record(&meter, reservation, Tokens(1), now);
    selected.push_back(now);
    now += (*random)() % 1000;
  }
  for (size_t i = share; i < selected.size(); ++i)
    ASSERT_GE(selected[i] - selected[i - share], seconds * kMicrosPerSecond) << rpm << " in " << seconds;
  for (size_t i = static_cast<size_t>(rpm); i < selected.size(); ++i)
    ASSERT_GT(selected[i] - selected[i - static_cast<size_t>(rpm)], 60 * kMicrosPerSecond);
  // The window is up to 61 seconds long.
  double best = rpm * 1300 / 61.0;
  EXPECT_GE(static_cast<double>(selected.size()), best * seconds / (seconds + 1)) << rpm << " in " << seconds;
}

TEST(Burst, IsNeverOverAndYieldsItsPart) {
  std::mt19937 random(61);
  for (int64_t rpm : {1, 5, 59, 60, 61, 100, 240, 1000})
    for (int seconds : {1, 2, 7, 10, 29, 30}) CheckBurst(rpm, seconds, &random);
}

TEST(Burst, KeepsRequestsApartToTheMicrosecond) {
  Meter meter = KeyMeter();
  Limits limits = LimitOf(Limit::kRpm, 60);
  limits.burst_seconds = 1;
  Select(&meter, {}, At(0.25));
  EXPECT_EQ(Admits(meter, limits, {}, At(0.5)).moment, At(1.25));
  EXPECT_FALSE(Serves(meter, limits, At(1.25) - 1));
  EXPECT_TRUE(Serves(meter, limits, At(1.25)));
}

TEST(Burst, KeepsRequestsApartThoughACrashLostWhenTheLastOneWas) {
  Meter meter = KeyMeter();
  Limits limits = LimitOf(Limit::kRpm, 6);
  limits.burst_seconds = 10;
  Record(&meter, Select(&meter, {}, At(0.25)), {}, At(0.5));
  meter.reserved = {};
  EXPECT_EQ(Admits(meter, limits, {}, At(1)).moment, At(11)) << "by the second that was logged";
}

TEST(Burst, IsOffWithoutMaxRpm) {
  Meter meter = KeyMeter();
  Limits limits = LimitOf(Limit::kTpm, 1000);
  limits.burst_seconds = 1;
  for (int i = 0; i < 10; ++i) Select(&meter, {}, kStart);
  EXPECT_TRUE(Serves(meter, limits, kStart));
}

// What is remembered of a meter that refuses holds for every size and moment that it names, and is not too careful.
TEST(Wait, IsTrueAndTight) {
  std::mt19937 random(62);
  int refusals = 0;
  for (int round = 0; round < 20000; ++round) {
    Meter meter = KeyMeter();
    TimeUs now = kStart;
    auto some = [&](int64_t max) { return static_cast<int64_t>(random() % static_cast<uint64_t>(max)); };
    Limits limits;
    if (random() % 3 == 0) limits.of(Limit::kRpm) = 1 + some(8);
    if (random() % 3 == 0) limits.of(Limit::kTpm) = 100 + some(200);
    if (random() % 3 == 0) limits.of(Limit::kOutputTpm) = 50 + some(100);
    if (random() % 3 == 0) limits.of(Limit::kCostDay) = 100 + some(1000);
    if (random() % 3 == 0) limits.of(Limit::kTpd) = 100 + some(1000);
    if (random() % 3 == 0) limits.of(Limit::kInFlight) = 1 + some(6);
    auto amounts = [&] { return Amounts{50 + some(50), some(50), 0, some(100)}; };
    for (int i = 0; i < 6; ++i) {
      now += some(20 * kMicrosPerSecond);
      if (random() % 2)
        Select(&meter, amounts(), now);
      else
        Use(&meter, amounts(), now);
    }
    if (random() % 4 == 0) Cool(&meter, now + 1 + some(40 * kMicrosPerSecond), now);
    Amounts asked = random() % 4 == 0 ? Amounts{0, 0, 0, some(100)} : amounts();
    Ask ask = {asked, 0, now};
    Admission refused = Admit(meter, limits, ask);
    if (refused.admitted()) continue;
    ++refusals;
    Wait wait = WaitOf(meter, limits, ask);
    ASSERT_LE(wait.tokens, asked.tokens);
    ASSERT_GT(wait.moment, now);
    ASSERT_LE(wait.moment, refused.moment);
    auto scaled = [&](int64_t tokens) {
      if (asked.tokens == 0) return Serves(meter, limits, now) ? asked : Amounts{};
      auto part = [&](int64_t amount) { return (amount * tokens + asked.tokens - 1) / asked.tokens; };
      return Amounts{tokens, part(asked.output), 0, part(asked.cost)};
    };
    ASSERT_FALSE(Admits(meter, limits, scaled(wait.tokens), wait.moment - 1).admitted());
    ASSERT_TRUE(Admits(meter, limits, scaled(wait.tokens), wait.moment).admitted());
    if (wait.tokens > 0) {
      ASSERT_TRUE(Admits(meter, limits, scaled(wait.tokens - 1), now).admitted());
    }
  }
  EXPECT_GT(refusals, 5000);
}

TEST(Wait, OfASizeThatThirtyTwoBitsDoNotHoldIsOver) {
  Meter meter = KeyMeter();
  Limits limits = LimitOf(Limit::kTpd, 10 * kMaxTokens);
  limits.rule.output_weight = 1000;
  Use(&meter, {kMaxTokens, 0, 0, 0}, kStart);
  Wait wait = WaitOf(meter, limits, {{kMaxTokens, 9000000, 0, 0}, 0, kStart});
  EXPECT_EQ(wait.moment, kStart);
}

TEST(Load, IsEasedByWhatLetsARequestBeServedSooner) {
  Meter meter = KeyMeter();
  Reservation lease = Select(&meter, Tokens(100), At(0)), second = Select(&meter, Tokens(100), At(0));
  auto eases = [&](auto change, bool calls_matter) {
    Load before = LoadOf(meter, {}, At(2));
    change();
    return LoadOf(meter, {}, At(2)).EasedFrom(before, calls_matter);
  };
  EXPECT_FALSE(eases([&] { Select(&meter, Tokens(1), At(1)); }, true));
  EXPECT_FALSE(eases([&] { Record(&meter, lease, Tokens(100), At(1)); }, false));
  EXPECT_TRUE(eases([&] { Record(&meter, second, Tokens(99), At(1)); }, false));
  Reservation third = Select(&meter, {}, At(2)), fourth = Select(&meter, {}, At(2));
  EXPECT_TRUE(eases([&] { Record(&meter, fourth, {}, At(2)); }, true)) << "a place is free";
  EXPECT_TRUE(eases([&] { Release(&meter, third, At(2)); }, false));
  EXPECT_TRUE(eases([&] { Cool(&meter, At(60), At(2)); }, false)) << "waits for another reason";
  EXPECT_FALSE(eases([&] { Cool(&meter, At(60), At(2)); }, false));
  MeterEdit edit(&meter);
  EXPECT_TRUE(eases([&] { BlockModel(&edit, 5, At(90), At(2)); }, false));
  EXPECT_TRUE(eases([&] { ClearBlocks(&edit, At(0)); }, false));
}

TEST(Load, IsEasedWhenAClockPassesACooldownOrWhatWasUsed) {
  Meter meter = KeyMeter();
  Cool(&meter, At(1), At(0));
  Load before = LoadOf(meter, {}, At(0));
  Use(&meter, {}, At(2));
  EXPECT_TRUE(LoadOf(meter, {}, At(0)).EasedFrom(before));
  before = LoadOf(meter, {}, At(0));
  Use(&meter, {}, At(63));
  EXPECT_FALSE(LoadOf(meter, {}, At(0)).EasedFrom(before)) << "one request for another";
  before = LoadOf(meter, {}, At(0));
  Select(&meter, {}, At(200));
  EXPECT_FALSE(LoadOf(meter, {}, At(0)).EasedFrom(before));
}

TEST(Load, KnowsPeriodsAndWiderWindows) {
  Meter meter = FreshMeter(kDaySlots, kDefaultCallTimeout);
  PeriodEnds ends = {SecondOf(At(100)), SecondOf(At(200))};
  CountRule rule = {Counts::kUncached, 2};
  Use(&meter, {100, 10, 20, 7}, At(0), rule, ends);
  Select(&meter, {100, 10, 20, 9}, At(1), false, rule);
  Load load = LoadOf(meter, rule, At(1));
  EXPECT_EQ(load.cost, 16);
  EXPECT_EQ(load.day_requests, 2);
  EXPECT_EQ(load.day_tokens, 180);
  EXPECT_EQ(load.month_cost, 16);
  EXPECT_TRUE(LoadOf(meter, rule, At(100)).EasedFrom(load)) << "the day is over";
}

}  // namespace
}  // namespace keypool
