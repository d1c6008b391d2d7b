// call_test.cpp - one call over all its meters: reserved in all, ended in all, once, and told where that eases.
#include "core/quota/call.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "meters.h"

namespace keypool {
namespace {

constexpr TimeUs kMaxBlock = 86400 * kMicrosPerSecond;

MeterRules RulesOf(CountRule rule = {}, uint32_t ring_width = kSecondSlots, PeriodEnds ends = kFarEnds) {
  return {rule, ring_width, kDefaultCallTimeout, ends};
}

// A key and its quotas.
struct Under {
  std::vector<MeterRules> rules;
  std::vector<Meter> meters;

  CallBegun begun = {};  // the last one

  explicit Under(std::vector<MeterRules> of) : rules(of) {
    for (const MeterRules &one : rules) meters.push_back(FreshMeter(one.ring_width, one.call_timeout));
  }
  int count() const { return static_cast<int>(meters.size()); }

  Reservation Reserve(const Amounts &estimates, TimeUs now, int64_t turn = 0, bool watched = false,
                      uint8_t *eased = nullptr) {
    Meter *at[kMaxMeters];
    const MeterRules *by[kMaxMeters];
    for (size_t i = 0; i < meters.size(); ++i) at[i] = &meters[i], by[i] = &rules[i];
    begun = ReserveCall(at, by, count(), {estimates, turn, watched, false}, now);
    if (eased != nullptr) *eased = begun.eased;
    return begun.reservation;
  }

  CallEnded End(const CallEnd &end, TimeUs now) {
    MeterEdit edits[kMaxMeters];
    const MeterRules *by[kMaxMeters];
    for (size_t i = 0; i < meters.size(); ++i) edits[i].Begin(&meters[i], nullptr), by[i] = &rules[i];
    return EndCall(edits, by, count(), end, kMaxBlock, now);
  }

  uint8_t DropOfKey(TimeUs now) {
    MeterEdit edits[kMaxMeters];
    const MeterRules *by[kMaxMeters];
    for (size_t i = 0; i < meters.size(); ++i) edits[i].Begin(&meters[i], nullptr), by[i] = &rules[i];
    return DropCallsOfKey(edits, by, count(), kMaxBlock, now);
  }
};

CallEnd Recorded(const Reservation &reservation, const Amounts &used) {
  return EndOf(Ending::kRecorded, &reservation, used);
}
CallEnd Released(const Reservation &reservation) { return EndOf(Ending::kReleased, &reservation, {}); }
CallEnd Limited(const Reservation &reservation, uint8_t blames, TimeUs until, uint32_t model = 0) {
  CallEnd end = EndOf(Ending::kLimited, &reservation, {});
  end.blames = blames;
  end.blamed_model = model;
  end.until = until;
  return end;
}
CallEnd WithoutLease(Ending ending, const Amounts &used) { return EndOf(ending, nullptr, used); }

bool SameBytes(const std::vector<Meter> &one, const std::vector<Meter> &other) {
  return memcmp(one.data(), other.data(), one.size() * sizeof(Meter)) == 0;
}

TEST(ReserveCall, ReservesInAllMetersInOneSecond) {
  Under call({RulesOf(), RulesOf({Counts::kInput, 1}), RulesOf({}, kHourSlots)});
  Use(&call.meters[2], {}, At(7));
  std::vector<Meter> before = call.meters;
  Reservation reservation = call.Reserve({100, 30, 20, 4}, At(5), 77);
  EXPECT_EQ(reservation.second, SecondOf(At(7))) << "the latest of all clocks";
  EXPECT_EQ(reservation.sequence, 0u);
  EXPECT_EQ(reservation.estimates, (Amounts{100, 30, 20, 4}));
  EXPECT_EQ(UseInWindow(call.meters[0], 0).tokens, 100);
  EXPECT_EQ(UseInWindow(call.meters[1], 0).tokens, 50) << "as its rule counts";
  EXPECT_EQ(CallsInFlight(call.meters[2], 0).cost, 4);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(call.meters[i].reserved.last_selected_at, At(7));
    EXPECT_EQ(memcmp(&before[i].recorded, &call.meters[i].recorded, sizeof(RecordedMeter)), 0) << "hints only";
    EXPECT_EQ(call.meters[i].reserved.turn, i == 0 ? 77 : 0) << "only keys have turns";
  }
  EXPECT_EQ(call.Reserve({}, At(7)).sequence, 1u);
}

TEST(ReserveCall, LeavesATurnThatIsNone) {
  Under call({RulesOf()});
  call.meters[0].reserved.turn = -5;
  call.Reserve({}, At(0), -5);
  EXPECT_EQ(call.meters[0].reserved.turn, -5);
}

TEST(ReserveCall, TellsOfMetersWhoseClockItMovesIfItIsWatched) {
  Under call({RulesOf(), RulesOf(), RulesOf()});
  call.Reserve(Tokens(100), At(0));
  call.meters[1].reserved.awaited = kAwaited;
  uint8_t eased;
  call.Reserve(Tokens(10), At(1), 0, true, &eased);
  EXPECT_EQ(eased, 0) << "nothing has left the window";
  call.Reserve(Tokens(10), At(70), 0, false, &eased);
  EXPECT_EQ(eased, 0) << "it is not watched";
  EXPECT_EQ(call.meters[1].reserved.awaited, kAwaited);
  call.meters[0].reserved.awaited = kAwaited | kAwaitedForCalls;
  call.Reserve(Tokens(5), At(140), 0, true, &eased);
  EXPECT_EQ(eased, 3);
  EXPECT_EQ(call.meters[0].reserved.awaited, 0u);
  EXPECT_EQ(call.meters[1].reserved.awaited, 0u);
}

TEST(EndCall, TellsOfMetersThatAreAwaitedForPace) {
  Under call({RulesOf(), RulesOf()});
  call.Reserve({}, At(0));
  Use(&call.meters[0], {}, At(0.5));
  Use(&call.meters[1], {}, At(0.5));
  call.meters[0].reserved.awaited = kAwaited;
  call.meters[1].reserved.awaited = kAwaited | kAwaitedForPace;
  CallEnded ended = call.End(WithoutLease(Ending::kRecorded, {}), At(1));
  EXPECT_EQ(ended.eased, 2) << "its clock has moved";
  EXPECT_EQ(call.meters[0].reserved.awaited, kAwaited);
}

TEST(EndCall, CountsInAllMetersByTheirRules) {
  PeriodEnds tokyo = {SecondOf(At(1000)), SecondOf(At(2000))};
  Under call({RulesOf(), RulesOf({Counts::kInput, 1}), RulesOf({}, kHourSlots, tokyo)});
  Reservation reservation = call.Reserve({1000, 0, 0, 50}, At(0));
  EXPECT_TRUE(call.End(Recorded(reservation, {100, 30, 20, 7}), At(3)).counted);
  for (const Meter &meter : call.meters) {
    EXPECT_EQ(meter.recorded.totals.requests, 1);
    EXPECT_EQ(meter.recorded.totals.cost, 7);
    EXPECT_EQ(CallsInFlight(meter, At(3)).calls, 0);
    EXPECT_EQ(UseInWindow(meter, At(3)).open, 0);
  }
  EXPECT_EQ(UseInWindow(call.meters[0], At(3)).tokens, 100);
  EXPECT_EQ(UseInWindow(call.meters[1], At(3)).tokens, 50);
  EXPECT_EQ(UseInWindow(call.meters[0], At(60)).requests, 1) << "in the second of the selection";
  EXPECT_EQ(UseInWindow(call.meters[0], At(61)).requests, 0);
  EXPECT_EQ(call.meters[0].recorded.day.end, kFarEnds.day);
  EXPECT_EQ(call.meters[2].recorded.day.end, tokyo.day);
  EXPECT_EQ(call.meters[2].recorded.month.end, tokyo.month);
}

TEST(EndCall, OfASettledLeaseChangesNothing) {
  Under call({RulesOf(), RulesOf(), RulesOf({}, kDaySlots)});
  Reservation reservation = call.Reserve(Tokens(500), At(0)), released = call.Reserve(Tokens(500), At(0));
  call.Reserve(Tokens(500), At(1));
  EXPECT_TRUE(call.End(Recorded(reservation, Tokens(9)), At(1)).counted);
  EXPECT_TRUE(call.End(Released(released), At(1)).counted);
  std::vector<Meter> before = call.meters;
  for (const Reservation &repeated : {reservation, released}) {
    EXPECT_FALSE(call.End(Recorded(repeated, Tokens(9)), At(63.9)).counted);
    EXPECT_FALSE(call.End(Released(repeated), At(2)).counted);
  }
  for (Meter &meter : before) meter.reserved.repeats = 4;
  EXPECT_TRUE(SameBytes(before, call.meters)) << "that they came is all that is counted";
}

TEST(EndCall, OfAReleaseGivesBackInAllMeters) {
  Under call({RulesOf(), RulesOf({Counts::kInput, 1}), RulesOf({}, kHourSlots)});
  call.Reserve({200, 20, 10, 3}, At(0));
  std::vector<Meter> before = call.meters;
  Reservation reservation = call.Reserve({100, 30, 20, 4}, At(0));
  CallEnded ended = call.End(Released(reservation), At(20));
  EXPECT_TRUE(ended.counted);
  EXPECT_EQ(ended.blocked_until, 0);
  for (size_t i = 0; i < 3; ++i) {
    const Meter &meter = call.meters[i];
    EXPECT_EQ(UseInWindow(meter, At(20)).tokens, UseInWindow(before[i], At(20)).tokens);
    EXPECT_EQ(UseInWindow(meter, At(20)).requests, 1);
    EXPECT_EQ(CallsInFlight(meter, At(20)).cost, 3);
    EXPECT_EQ(meter.recorded.totals.requests, 0);
    EXPECT_EQ(meter.recorded.totals.last_used_at, 0);
    EXPECT_EQ(meter.reserved.releases, 1);
  }
}

TEST(EndCall, OfAReleaseThatTookLongFreesItsPlace) {
  Under call({RulesOf(), RulesOf()});
  Reservation reservation = call.Reserve(Tokens(100), At(0));
  EXPECT_TRUE(call.End(Released(reservation), At(600)).counted);
  for (const Meter &meter : call.meters) EXPECT_EQ(CallsInFlight(meter, At(600)).calls, 0);
}

TEST(EndCall, OfA429CountsAndBlocksWhatIsBlamed) {
  Under call({RulesOf(), RulesOf(), RulesOf()});
  Reservation reservation = call.Reserve(Tokens(100), At(0));
  Cool(&call.meters[2], At(90), At(0));
  CallEnded ended = call.End(Limited(reservation, 6, At(60)), At(1));
  EXPECT_TRUE(ended.counted);
  EXPECT_EQ(ended.blocked_until, At(90)) << "the latest deadline that stands";
  EXPECT_TRUE(Serves(call.meters[0], {}, At(1)));
  EXPECT_EQ(call.meters[1].recorded.blocked_until, At(60));
  EXPECT_EQ(call.meters[2].recorded.blocked_until, At(90));
  for (const Meter &meter : call.meters) {
    EXPECT_EQ(meter.recorded.totals.requests, 1);
    EXPECT_EQ(UseInWindow(meter, At(1)).tokens, 0);
  }
}

TEST(EndCall, OfA429BlocksTheKeyForOneModelAndQuotasForAll) {
  Under call({RulesOf(), RulesOf()});
  Reservation reservation = call.Reserve({}, At(0));
  CallEnded ended = call.End(Limited(reservation, 3, At(60), 5), At(1));
  EXPECT_EQ(ended.blocked_until, At(60));
  EXPECT_TRUE(IsModelBlocked(call.meters[0], 5, At(1)));
  EXPECT_FALSE(IsModelBlocked(call.meters[0], 6, At(1)));
  EXPECT_FALSE(IsModelBlocked(call.meters[0], 5, At(60)));
  EXPECT_FALSE(IsModelBlocked(call.meters[1], 5, At(1))) << "the whole meter is blocked";
  EXPECT_FALSE(Serves(call.meters[1], {}, At(1)));
  Cool(&call.meters[0], At(30), At(1));
  EXPECT_TRUE(IsModelBlocked(call.meters[0], 5, At(29))) << "also while the whole key is";
  EXPECT_TRUE(IsModelBlocked(call.meters[0], 5, At(30)));
}

TEST(EndCall, OfA429BlocksEvenIfTheLeaseIsSettled) {
  Under call({RulesOf(), RulesOf()});
  Reservation reservation = call.Reserve(Tokens(100), At(0));
  call.End(Recorded(reservation, Tokens(9)), At(1));
  CallEnded ended = call.End(Limited(reservation, 2, At(60)), At(2));
  EXPECT_FALSE(ended.counted);
  EXPECT_EQ(ended.blocked_until, At(60));
  EXPECT_EQ(call.meters[1].recorded.totals.requests, 1);
  EXPECT_EQ(call.meters[1].recorded.blocked_until, At(60));
  EXPECT_EQ(call.meters[0].recorded.blocked_until, 0);
}

TEST(EndCall, OfA429ThatBlamesNobodyOnlyCounts) {
  Under call({RulesOf()});
  CallEnded ended = call.End(Limited(call.Reserve({}, At(0)), 0, At(60)), At(1));
  EXPECT_TRUE(ended.counted);
  EXPECT_EQ(ended.blocked_until, 0);
  EXPECT_TRUE(Serves(call.meters[0], {}, At(1)));
}

TEST(EndCall, OfALeaseThatIsTooOldCountsInTotalsAndPeriods) {
  for (Ending ending : {Ending::kRecorded, Ending::kLimited}) {
    Under call({RulesOf(), RulesOf()});
    Reservation open = call.Reserve(Tokens(100), At(0));
    Reservation old = {open.second - 8 * 3600, 0, {}};
    CallEnd end = EndOf(ending, &old, {10, 0, 0, 7});
    end.too_old = true;
    end.blames = 1;
    end.until = At(60);
    CallEnded ended = call.End(end, At(0));
    EXPECT_TRUE(ended.counted);
    EXPECT_EQ(ended.blocked_until, ending == Ending::kLimited ? At(60) : 0);
    for (const Meter &meter : call.meters) {
      EXPECT_EQ(meter.recorded.totals.tokens, 10);
      EXPECT_EQ(UseInPeriod(meter, meter.recorded.month, {}, At(0)).cost, 7);
      EXPECT_EQ(UseInWindow(meter, At(0)).requests, 1) << "the open call's";
      EXPECT_EQ(UseInWindow(meter, At(0)).tokens, 100);
    }
  }
}

TEST(EndCall, OfALeaseThatIsTooOldGivesNothingBack) {
  Under call({RulesOf(), RulesOf()});
  Reservation open = call.Reserve(Tokens(100), At(0));
  std::vector<Meter> before = call.meters;
  CallEnd end = Released(open);
  end.too_old = true;
  EXPECT_FALSE(call.End(end, At(0)).counted);
  EXPECT_TRUE(SameBytes(before, call.meters));
}

// The lease's second is far ahead of the meters, which the clock's step back and Upkeep have put there.
TEST(EndCall, OfALeaseThatIsTooOldDoesNotMoveTheClock) {
  Under call({RulesOf()});
  CallEnd end = Recorded({SecondOf(At(3 * 3600)), 0, {}}, Tokens(5));
  end.too_old = true;
  call.End(end, At(0));
  EXPECT_EQ(MeterNow(call.meters[0], 0), At(0));
}

TEST(EndCall, AfterACrashAndAStepBackIsInTheLeasesSecond) {
  Under call({RulesOf(), RulesOf()});
  Reservation reservation = call.Reserve({}, At(30));
  for (Meter &meter : call.meters) meter.reserved = {};
  EXPECT_TRUE(call.End(Recorded(reservation, {}), At(0)).counted);
  for (const Meter &meter : call.meters) EXPECT_EQ(MeterNow(meter, 0), At(30));
  EXPECT_FALSE(call.End(Recorded(reservation, {}), At(0)).counted);
}

TEST(EndCall, WithoutALeaseTakesTheOldestOfTheKey) {
  for (Ending ending : {Ending::kRecorded, Ending::kLimited}) {
    Under call({RulesOf(), RulesOf()});
    call.Reserve(Tokens(100), At(0));
    call.Reserve(Tokens(300), At(1));
    EXPECT_TRUE(call.End(WithoutLease(ending, Tokens(5)), At(2)).counted);
    for (const Meter &meter : call.meters) {
      EXPECT_EQ(UseInWindow(meter, At(2)).tokens, 305);
      EXPECT_EQ(UseInWindow(meter, At(2)).open, 1);
      EXPECT_EQ(CallsInFlight(meter, At(2)).tokens, 300);
      EXPECT_EQ(UseInWindow(meter, At(61)).requests, 1) << "the first counts in its second";
    }
  }
}

TEST(EndCall, WithoutALeaseAndACallCountsARecordNowAndA429NotAtAll) {
  Under call({RulesOf(), RulesOf()});
  CallEnd limited = WithoutLease(Ending::kLimited, Tokens(5));
  limited.blames = 1;
  limited.until = At(60);
  CallEnded ended = call.End(limited, At(0));
  EXPECT_FALSE(ended.counted);
  EXPECT_EQ(ended.blocked_until, At(60));
  EXPECT_EQ(call.meters[0].recorded.totals.requests, 0);
  EXPECT_TRUE(call.End(WithoutLease(Ending::kRecorded, Tokens(5)), At(1)).counted);
  for (const Meter &meter : call.meters) {
    EXPECT_EQ(meter.recorded.totals.tokens, 5);
    EXPECT_EQ(UseInWindow(meter, At(61)).requests, 1);
  }
}

TEST(Call, CountsApartWhatNamesNoModel) {
  Under call({RulesOf(), RulesOf()});
  Meter *meters[] = {&call.meters[0], &call.meters[1]};
  const MeterRules *rules[] = {&call.rules[0], &call.rules[1]};
  ReserveCall(meters, rules, 2, {{}, 0, false, true}, At(1));
  CallEnd without = WithoutLease(Ending::kRecorded, {});
  without.without_model = true;
  call.End(without, At(2));
  call.End(WithoutLease(Ending::kRecorded, {}), At(3));
  EXPECT_EQ(call.meters[0].reserved.without_model, 2);
  EXPECT_EQ(call.meters[0].reserved.without_model_at, At(2));
  EXPECT_EQ(call.meters[1].reserved.without_model, 0) << "by its key";
}

TEST(Upkeep, IsNeededWhereAMeterIsNotAsConfigured) {
  Meter meter = KeyMeter();
  EXPECT_FALSE(NeedsUpkeep(meter, RulesOf(), At(0)));
  EXPECT_TRUE(NeedsUpkeep(meter, RulesOf({}, kHourSlots), At(0)));
  MeterRules slow = RulesOf();
  slow.call_timeout = 60;
  EXPECT_TRUE(NeedsUpkeep(meter, slow, At(0)));
  Use(&meter, {}, At(kClockLead + 1));
  EXPECT_TRUE(NeedsUpkeep(meter, RulesOf(), At(0)));
  EXPECT_FALSE(NeedsUpkeep(meter, RulesOf(), At(1)));
}

TEST(Upkeep, DoesNothingWhereItIsNotNeeded) {
  Meter meter = KeyMeter();
  meter.reserved.awaited = kAwaited;
  MeterEdit edit(&meter);
  EXPECT_FALSE(Upkeep(&edit, RulesOf(), kMaxBlock, At(0)));
  const ChangedBytes *changes;
  EXPECT_EQ(edit.Finish(&changes), 0);
  EXPECT_EQ(meter.reserved.awaited, kAwaited);
}

// The moments that sessions remember are of another clock, however little has left the window.
TEST(Upkeep, TellsWhoRemembersAMeterWhoseClockWasWrong) {
  for (bool awaited : {true, false}) {
    Meter meter = KeyMeter();
    Use(&meter, Tokens(7), At(5000000), {}, {SecondOf(At(9000000)), SecondOf(At(9000000))});
    Cool(&meter, At(9000000), At(5000000));
    meter.reserved.awaited = awaited ? kAwaited : 0;
    MeterEdit edit(&meter);
    EXPECT_EQ(Upkeep(&edit, RulesOf(), 100 * kMicrosPerSecond, At(0)), awaited);
    EXPECT_FALSE(NeedsUpkeep(meter, RulesOf(), At(0)));
    EXPECT_EQ(meter.reserved.awaited, 0u);
    EXPECT_EQ(meter.recorded.blocked_until, At(100));
    EXPECT_EQ(UseInWindow(meter, At(0)).tokens, 7);
  }
}

TEST(Upkeep, ComesBeforeACallEnds) {
  Under call({RulesOf(), RulesOf()});
  Reservation reservation = call.Reserve(Tokens(100), At(0));
  call.rules[1].ring_width = kHourSlots;
  call.meters[1].reserved.awaited = kAwaited;
  CallEnded ended = call.End(Recorded(reservation, Tokens(100)), At(1));
  EXPECT_TRUE(ended.counted);
  EXPECT_EQ(ended.eased, 2);
  EXPECT_EQ(call.meters[1].recorded.ring_width, kHourSlots);
  EXPECT_EQ(UseInWindow(call.meters[1], At(1)).tokens, 100);
}

TEST(Upkeep, ClearsTheHintInTheCopyAndInWhatWasCopied) {
  Meter page = KeyMeter();
  Reservation reservation = Select(&page, Tokens(100), At(0));
  page.reserved.awaited = kAwaited;
  Meter copy = page, before = page;
  MeterEdit edits[1];
  edits[0].Begin(&copy, &page);
  MeterRules rules = RulesOf();
  const MeterRules *by[] = {&rules};
  EXPECT_EQ(EndCall(edits, by, 1, Recorded(reservation, Tokens(5)), kMaxBlock, At(1)).eased, 1);
  EXPECT_EQ(copy.reserved.awaited, 0u);
  before.reserved.awaited = 0;
  EXPECT_EQ(memcmp(&before, &page, sizeof(page)), 0) << "of what is not logged nothing else is changed";
}

TEST(DropCalls, OfAKeyGiveBackWhatTheyHoldInItsQuotas) {
  Under call({RulesOf(), RulesOf(), RulesOf({}, kHourSlots)});
  Reservation lease = call.Reserve(Tokens(10), At(0));
  call.Reserve(Tokens(10), At(0));
  call.Reserve(Tokens(10), At(200));
  Select(&call.meters[1], Tokens(7), At(100), false);  // another key's
  call.meters[1].reserved.awaited = 1;
  EXPECT_EQ(call.DropOfKey(At(201)) & 2, 2);
  EXPECT_EQ(call.meters[1].reserved.awaited, 0u);
  EXPECT_EQ(CallsInFlight(call.meters[0], At(201)).calls, 0);
  EXPECT_EQ(CallsInFlight(call.meters[1], At(201)).calls, 1);
  EXPECT_NEAR(CallsInFlight(call.meters[1], At(201)).tokens, 7, 3) << "equal shares";
  EXPECT_EQ(CallsInFlight(call.meters[2], At(201)).calls, 0);
  EXPECT_TRUE(call.End(Recorded(lease, Tokens(9)), At(202)).counted) << "who was only slow";
  EXPECT_EQ(call.meters[2].recorded.totals.tokens, 9);
}

TEST(DropCalls, OfOneMeterWakeWhoAwaitsIt) {
  Meter meter = KeyMeter();
  Select(&meter, Tokens(10), At(0));
  meter.reserved.awaited = 1;
  MeterEdit edit(&meter);
  EXPECT_TRUE(ClearMeter(&edit, Clears::kOpenCalls, RulesOf(), kMaxBlock, At(1)));
  EXPECT_FALSE(ClearMeter(&edit, Clears::kOpenCalls, RulesOf(), kMaxBlock, At(1)));
  EXPECT_EQ(CallsInFlight(meter, At(1)).calls, 0);
}

}  // namespace
}  // namespace keypool
