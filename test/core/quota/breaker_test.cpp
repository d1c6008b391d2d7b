// breaker_test.cpp - failures in a row open a breaker, one probe at a time tries it again, and a success closes it.
#include "core/quota/breaker.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "core/quota/call.h"
#include "meters.h"

namespace keypool {
namespace {

constexpr BreakerRule kAtOnce = {4, 1, 600}, kAfterThree = {7, 3, 10}, kNever = {6, 0, 1};

struct Broken {
  Meter meter = KeyMeter();
  MeterEdit edit{&meter};

  bool Fail(const BreakerRule &rule, double selected, double now) {
    return NoteFailure(&edit, rule, SecondOf(At(selected)), At(now));
  }
  void Succeed(double selected) { NoteSuccess(&edit, SecondOf(At(selected))); }
  bool Passes(double now) { return Serves(meter, {}, At(now)); }
  BreakerState State(double now) { return BreakerStateOf(meter, At(now)); }
};

TEST(Breaker, OpensAtTheThresholdOfFailuresInARow) {
  Broken key;
  EXPECT_FALSE(key.Fail(kAfterThree, 0, 1));
  EXPECT_FALSE(key.Fail(kAfterThree, 1, 2));
  key.Succeed(2);
  EXPECT_FALSE(key.Fail(kAfterThree, 3, 4));
  EXPECT_FALSE(key.Fail(kAfterThree, 3, 4));
  EXPECT_TRUE(WouldOpen(key.meter, kAfterThree, SecondOf(At(4))));
  EXPECT_TRUE(key.Passes(5));
  EXPECT_TRUE(key.Fail(kAfterThree, 4, 5));
  EXPECT_EQ(key.State(5), BreakerState::kOpen);
  EXPECT_FALSE(WouldOpen(key.meter, kAtOnce, SecondOf(At(5))));
  EXPECT_FALSE(key.Passes(14.999999));
  EXPECT_EQ(Admits(key.meter, {}, {}, At(5)).obstacle, Obstacle::kBreaker);
  EXPECT_EQ(Admits(key.meter, {}, {}, At(5)).moment, At(15));
  EXPECT_TRUE(key.Passes(15));
}

TEST(Breaker, KnowsForHowLongItHasBeenOpen) {
  Broken key;
  EXPECT_EQ(BreakerOpenFor(key.meter, At(5)), 0);
  EXPECT_TRUE(key.Fail(kAtOnce, 0, 1));
  EXPECT_EQ(BreakerOpenFor(key.meter, At(31)), StartOf(30));
  EXPECT_TRUE(key.Fail(kAtOnce, 601, 601));
  EXPECT_TRUE(key.Fail(kAtOnce, 1801, 1801));
  EXPECT_EQ(BreakerOpenFor(key.meter, At(1801)), StartOf(1800)) << "600 and 1200 s before";
  EXPECT_EQ(BreakerOpenFor(key.meter, At(9001)), StartOf(9000)) << "also while nobody probes it";
  EXPECT_EQ(BreakerOpenFor(key.meter, At(0)), StartOf(1800)) << "nor does a clock that was set back make it negative";
  key.Succeed(9001);
  EXPECT_EQ(BreakerOpenFor(key.meter, At(9002)), 0);
}

TEST(Breaker, CountsFailuresOfOneReason) {
  Broken key;
  for (int i = 0; i < 5; ++i) {
    EXPECT_FALSE(key.Fail(kAfterThree, i, i));
    EXPECT_FALSE(key.Fail(kNever, i, i));
  }
  EXPECT_EQ(key.State(5), BreakerState::kClosed);
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(key.Fail(kNever, 6, 6));
  EXPECT_EQ(key.meter.recorded.breaker.failures, 101);
}

TEST(Breaker, LetsOneProbeThroughAtATime) {
  Broken key;
  EXPECT_TRUE(key.Fail(kAtOnce, 1, 1));
  EXPECT_FALSE(BeginProbe(&key.meter, At(600)));
  EXPECT_EQ(key.State(601), BreakerState::kHalfOpen);
  EXPECT_TRUE(key.Passes(601));
  EXPECT_TRUE(BeginProbe(&key.meter, At(601)));
  EXPECT_FALSE(key.Passes(602));
  EXPECT_EQ(Admits(key.meter, {}, {}, At(602)).moment, At(1201)) << "the place of a probe that nobody settles";
  EXPECT_TRUE(key.Passes(1201));
  EXPECT_TRUE(BeginProbe(&key.meter, At(1201)));
  EndProbe(&key.edit, SecondOf(At(601)));
  EXPECT_FALSE(key.Passes(1202)) << "the place is another one's by now";
  EXPECT_FALSE(key.Fail(kNever, 601, 1202));
  EXPECT_FALSE(key.Passes(1202));
  EndProbe(&key.edit, SecondOf(At(1201)));
  EXPECT_TRUE(key.Passes(1202)) << "it said nothing";
}

TEST(Breaker, KeepsThePlaceOfAProbeForAMinuteAtLeast) {
  Broken key;
  for (int i = 0; i < 3; ++i) key.Fail(kAfterThree, 1, 1);
  EXPECT_TRUE(BeginProbe(&key.meter, At(11)));
  EXPECT_FALSE(key.Passes(70.999999));
  EXPECT_TRUE(key.Passes(71));
}

TEST(Breaker, IsClosedByASuccessOfACallThatWasSelectedLater) {
  Broken key;
  EXPECT_TRUE(key.Fail(kAtOnce, 0, 5));
  key.Succeed(4);
  key.Succeed(5);
  EXPECT_FALSE(key.Passes(5)) << "calls that were selected before say nothing";
  EXPECT_FALSE(key.Fail(kAtOnce, 5, 6)) << "nor do they open it for longer";
  EXPECT_EQ(key.meter.recorded.breaker.openings, 1);
  EXPECT_TRUE(BeginProbe(&key.meter, At(605)));
  key.Succeed(605);
  EXPECT_EQ(key.State(605), BreakerState::kClosed);
  EXPECT_TRUE(key.Passes(605));
  EXPECT_FALSE(key.Fail(kAtOnce, 5, 606)) << "of before";
  EXPECT_TRUE(key.Fail(kAtOnce, 606, 607));
  EXPECT_EQ(key.meter.recorded.breaker.seconds, 600u) << "its time begins again";
}

TEST(Breaker, OpensForTwiceAsLongAfterAProbeThatFailed) {
  Broken key;
  double now = 1;
  EXPECT_TRUE(key.Fail(kAtOnce, now, now));
  for (uint32_t seconds : {600u, 1200u, 2400u, 4800u, 9600u, 19200u, 38400u, 76800u, 86400u, 86400u}) {
    EXPECT_EQ(key.meter.recorded.breaker.seconds, seconds);
    EXPECT_FALSE(key.Passes(now + seconds - 0.000001));
    now += seconds;
    EXPECT_TRUE(BeginProbe(&key.meter, At(now)));
    EXPECT_TRUE(key.Fail(kAtOnce, now, now));
  }
  for (int i = 0; i < 300; ++i) {
    now += 86400;
    EXPECT_TRUE(key.Fail(kAfterThree, now, now)) << "any failure of it";
  }
  EXPECT_EQ(key.meter.recorded.breaker.openings, UINT8_MAX);
}

TEST(Breaker, ThatIsClosedByHandHearsNothingOfBefore) {
  Broken key;
  EXPECT_TRUE(key.Fail(kAtOnce, 0, 5));
  ClearBlocks(&key.edit, At(10));
  EXPECT_TRUE(key.Passes(10));
  EXPECT_FALSE(key.Fail(kAtOnce, 10, 11));
  EXPECT_TRUE(key.Fail(kAtOnce, 11, 11));
  Broken fresh;
  ClearBlocks(&fresh.edit, At(10));
  EXPECT_FALSE(fresh.Fail(kAtOnce, 10, 11)) << "nor where there was nothing to close";
}

TEST(Breaker, SuspectsInPlaceOfOpening) {
  Broken key;
  EXPECT_FALSE(IsSuspect(key.meter, At(1)));
  NoteSuspicion(&key.edit, kAtOnce, SecondOf(At(1)), At(1));
  EXPECT_TRUE(IsSuspect(key.meter, At(1)));
  EXPECT_EQ(key.State(1), BreakerState::kClosed);
  EXPECT_FALSE(key.Passes(60.999999));
  EXPECT_TRUE(key.Passes(61)) << "and not one call at a time";
  EXPECT_FALSE(IsSuspect(key.meter, At(61)));
  Block(&key.edit, At(3600), At(61));
  EXPECT_FALSE(IsSuspect(key.meter, At(62))) << "a 429 is another matter";
  ClearBlocks(&key.edit, At(62));
  key.Succeed(63);
  EXPECT_EQ(key.meter.recorded.breaker.failures, 0);
}

TEST(Breaker, TakesATornProbeForNone) {
  Broken key;
  key.Fail(kAtOnce, 1, 1);
  key.meter.reserved.probe_until = UINT32_MAX;
  EXPECT_TRUE(key.Passes(601));
  key.meter.reserved.probe_until = 7;
  EXPECT_TRUE(key.Passes(601));
}

// What a settlement logs, put on a page that still has the probe, as recovery does.
TEST(Breaker, DoesNotTakeAProbeThatHasEndedForOneAfterACrash) {
  Broken key;
  key.Fail(kAtOnce, 1, 1);
  ASSERT_TRUE(BeginProbe(&key.meter, At(601)));
  Meter page = key.meter;
  MeterEdit edit(&key.meter);
  EndProbe(&edit, SecondOf(At(601)));
  const ChangedBytes *changes;
  int count = edit.Finish(&changes);
  for (int i = 0; i < count; ++i)
    memcpy(reinterpret_cast<char *>(&page) + changes[i].offset,
           reinterpret_cast<char *>(&key.meter) + changes[i].offset, changes[i].length);
  EXPECT_EQ(BreakerHoldsUntil(page, At(602)), 0);
}

// The calls of 64 clients on a key that fails until a moment, each settled as it was selected: opened once by those
// that fail together, then one at a time, closed once.
TEST(Breaker, IsProbedByOneCallAtATimeWhateverOrderTheyEndIn) {
  for (uint32_t seed = 1; seed <= 50; ++seed) {
    std::mt19937 random(seed);
    Meter meter = KeyMeter();
    MeterRules rules = {{}, kSecondSlots, kDefaultCallTimeout, kFarEnds};
    const MeterRules *by[] = {&rules};
    Meter *at[] = {&meter};
    std::vector<CallBegun> open;
    TimeUs now = At(0), works_from = At(400);
    int opened = 0, probes_open = 0, served = 0;
    for (int step = 0; step < 9000; ++step) {
      now += static_cast<TimeUs>(random() % 400000);
      if (random() % 2 == 0 && open.size() < 64 && Serves(meter, {}, now)) {
        open.push_back(ReserveCall(at, by, 1, {{}, 0, false, false}, now));
        probes_open += open.back().probes;
        ASSERT_LE(probes_open, 1) << seed;
        if (BreakerStateOf(meter, now) != BreakerState::kClosed) {
          ASSERT_EQ(open.back().probes, 1) << seed;
        }
      } else if (!open.empty()) {
        size_t pick = random() % open.size();
        CallBegun call = open[pick];
        open.erase(open.begin() + static_cast<ptrdiff_t>(pick));
        CallEnd end = EndOf(Ending::kRecorded, &call.reservation, {});
        end.probes = call.probes;
        end.health = StartOf(call.reservation.second) < works_from ? Health::kFailed : Health::kServed;
        end.fails = 1;
        end.failure = kAfterThree;
        MeterEdit edit(&meter);
        CallEnded ended = EndCall(&edit, by, 1, end, kMicrosPerSecond, now);
        opened += ended.opened;
        probes_open -= call.probes;
        served += end.health == Health::kServed;
      }
    }
    EXPECT_LE(opened, 7) << seed << ": 10, 20, 40, 80, 160, 320 s";
    EXPECT_GE(opened, 3) << seed;
    EXPECT_EQ(BreakerStateOf(meter, now), BreakerState::kClosed) << seed;
    EXPECT_GT(served, 100) << seed;
  }
}

TEST(EndCall, HearsOfCallsThatEndByTheirLeaseAndCount) {
  Meter meter = KeyMeter();
  MeterRules rules = {{}, kSecondSlots, kDefaultCallTimeout, kFarEnds};
  const MeterRules *by[] = {&rules};
  Meter *at[] = {&meter};
  auto fail = [&](const Reservation *lease, bool too_old = false) {
    CallEnd end = EndOf(Ending::kRecorded, lease, {});
    end.too_old = too_old;
    end.health = Health::kFailed;
    end.fails = 1;
    end.failure = kAtOnce;
    MeterEdit edit(&meter);
    return EndCall(&edit, by, 1, end, kMicrosPerSecond, At(9)).opened;
  };
  Reservation call = ReserveCall(at, by, 1, {{}, 0, false, false}, At(1)).reservation;
  EXPECT_EQ(fail(nullptr), 0);
  EXPECT_EQ(fail(&call, true), 0);
  EXPECT_EQ(fail(&call), 1);
  EXPECT_EQ(fail(&call), 0) << "it was settled";
  ClearBlocks(std::make_unique<MeterEdit>(&meter).get(), At(10));
  EXPECT_EQ(fail(&call), 0);
}

}  // namespace
}  // namespace keypool
