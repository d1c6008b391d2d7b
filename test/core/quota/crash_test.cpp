// crash_test.cpp - what a crash leaves of a meter: the recorded half exactly, of the reserved half nothing that was
// not.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <vector>

#include "core/quota/meter_text.h"
#include "core/quota/usage.h"
#include "meters.h"

namespace keypool {
namespace {

constexpr PeriodEnds EndsFrom(TimeUs now) { return {SecondOf(now) + 3600, SecondOf(now) + 86400}; }

// A meter on its page, the page as it was last written, and the log since then.
class LoggedMeter {
 public:
  explicit LoggedMeter(uint32_t ring_width) : meter(FreshMeter(ring_width, 120)), page_(meter), slots_(meter) {}

  void Log(MeterEdit *edit) {
    const ChangedBytes *changes;
    int count = edit->Finish(&changes);
    for (int i = 0; i < count; ++i) {
      auto *bytes = reinterpret_cast<const unsigned char *>(&meter) + changes[i].offset;
      log_.push_back({changes[i].offset, {bytes, bytes + changes[i].length}});
      for (int at = 0; at < kRingSlots; ++at) Keep(meter.reserved.ring[at], &slots_.reserved.ring[at], changes[i]);
      for (int at = 0; at < kOpenSlots; ++at) Keep(meter.reserved.open[at], &slots_.reserved.open[at], changes[i]);
    }
  }

  void WritePage() {
    page_ = slots_ = meter;
    log_.clear();
  }

  void Crash() {
    meter = page_;
    for (const Piece &piece : log_)
      memcpy(reinterpret_cast<unsigned char *>(&meter) + piece.offset, piece.bytes.data(), piece.bytes.size());
    const ReservedMeter &is = meter.reserved, &was = slots_.reserved;
    ASSERT_EQ(memcmp(is.ring, was.ring, sizeof(is.ring)), 0) << "a slot is what it was when it was logged or written";
    ASSERT_EQ(memcmp(is.open, was.open, sizeof(is.open)), 0);
  }

  Meter meter;

 private:
  // A slot of which a byte was logged is what it is now.
  template <typename Slot>
  void Keep(const Slot &slot, Slot *kept, const ChangedBytes &change) {
    auto offset = reinterpret_cast<const char *>(&slot) - reinterpret_cast<const char *>(&meter);
    if (change.offset < offset + static_cast<ptrdiff_t>(sizeof(Slot)) && offset < change.offset + change.length)
      *kept = slot;
  }

  struct Piece {
    uint16_t offset;
    std::vector<unsigned char> bytes;
  };
  Meter page_;
  Meter slots_;  // of the reserved half, as they were last written or logged
  std::vector<Piece> log_;
};

struct OpenCall {
  Reservation reservation;
  bool settled;
};

// A key and its quota, with pages that are written now and then, and crashes. `calls` is what really happened.
class CrashedHistory {
 public:
  CrashedHistory(uint32_t seed, uint32_t quota_width) : random_(seed), key_(kSecondSlots), quota_(quota_width) {}

  void Run(int steps) {
    for (int step = 0; step < steps && !testing::Test::HasFatalFailure(); ++step) {
      now_ += static_cast<TimeUs>(random_() % 1000000);
      switch (random_() % 40) {
        case 0:
          key_.WritePage();
          break;
        case 1:
          quota_.WritePage();
          break;
        case 2:
          Crash();
          break;
        default:
          random_() % 2 ? SelectOne() : SettleOne();
      }
      ASSERT_EQ(key_.meter.recorded.totals.requests, used_);
      ASSERT_EQ(quota_.meter.recorded.totals.requests, used_) << "the sum over keys is that of their quota";
    }
  }

  int crashes() const { return crashes_; }

 private:
  void SelectOne() {
    const Meter *meters[] = {&key_.meter, &quota_.meter};
    TimeUs now = CommonNow(meters, 2, now_);
    Amounts estimates = {static_cast<int64_t>(random_() % 1000), 0, 0, static_cast<int64_t>(random_() % 100)};
    Reservation reservation = {SecondOf(now), 0, estimates};
    reservation.sequence = Reserve(&key_.meter, {}, estimates, true, 0, now);
    Reserve(&quota_.meter, {}, estimates, false, 0, now);
    calls_.push_back({reservation, false});
  }

  // Settles one of the last, or repeats it.
  void SettleOne() {
    if (calls_.empty()) return;
    OpenCall &call = calls_[calls_.size() - 1 - random_() % std::min<size_t>(calls_.size(), 60)];
    const Meter *meters[] = {&key_.meter, &quota_.meter};
    TimeUs now = SettlingNow(meters, 2, call.reservation, now_);
    bool known = SecondOf(now) - call.reservation.second < 64;
    if (call.settled && !known) return;
    MeterEdit key(&key_.meter), quota(&quota_.meter);
    Settled settled = SettleOnce(&key, call.reservation, now);
    ASSERT_EQ(settled, call.settled ? Settled::kBefore : known ? Settled::kNow : Settled::kTooOld);
    if (settled != Settled::kBefore) {
      CloseInQuota(&quota, {}, call.reservation);
      if (random_() % 4) {
        Amounts used = {static_cast<int64_t>(random_() % 1000), 0, 0, 3};
        Count(&key, {}, used, call.reservation.second, EndsFrom(now), now);
        Count(&quota, {}, used, call.reservation.second, EndsFrom(now), now);
        ++used_;
      }
      call.settled = true;
    }
    key_.Log(&key);
    quota_.Log(&quota);
  }

  // Both pages at once, as one log has both.
  void Crash() {
    ++crashes_;
    RecordedMeter key = key_.meter.recorded, quota = quota_.meter.recorded;
    ASSERT_NO_FATAL_FAILURE(key_.Crash());
    ASSERT_NO_FATAL_FAILURE(quota_.Crash());
    ASSERT_EQ(memcmp(&key, &key_.meter.recorded, sizeof(key)), 0);
    ASSERT_EQ(memcmp(&quota, &quota_.meter.recorded, sizeof(quota)), 0);
    // The server comes back later: a second's numbers are not given out again.
    now_ += kMicrosPerSecond;
    for (const Meter *meter : {&key_.meter, &quota_.meter}) CheckOpen(*meter);
  }

  // No call is open that is not; each slot by itself. Slots that are over do not matter: another one may have taken
  // their place, and recovery may have brought them back.
  void CheckOpen(const Meter &meter) {
    std::map<Second, std::pair<int64_t, int64_t>> by_second;
    std::map<uint32_t, std::pair<int64_t, int64_t>> by_slot;
    for (const OpenCall &call : calls_) {
      if (call.settled) continue;
      auto add = [&](std::pair<int64_t, int64_t> *sums) {
        ++sums->first;
        sums->second += call.reservation.estimates.tokens;
      };
      add(&by_second[call.reservation.second]);
      add(&by_slot[OpenNumber(meter, call.reservation.second) & kOpenNumberMask]);
    }
    Second second = MeterSecond(meter, now_);
    for (const ReservedSlot &slot : meter.reserved.ring) {
      if (!InWindow(slot.second, second)) continue;
      ASSERT_LE(slot.open, by_second[slot.second].first);
      ASSERT_LE(slot.tokens, by_second[slot.second].second);
    }
    for (uint32_t age = 0; age < kOpenSlots; ++age) {
      uint32_t number = OpenNumber(meter, second) - age;
      const OpenSlot &slot = meter.reserved.open[OpenIndex(number)];
      if (!IsOpenSlot(slot, number)) continue;
      ASSERT_LE(static_cast<int64_t>(slot.calls), by_slot[slot.number].first);
      ASSERT_LE(static_cast<int64_t>(slot.tokens), by_slot[slot.number].second);
    }
  }

  std::mt19937 random_;
  LoggedMeter key_, quota_;
  TimeUs now_ = kStart;
  std::vector<OpenCall> calls_;
  int64_t used_ = 0;
  int crashes_ = 0;
};

TEST(Crash, LosesNothingThatWasRecordedAndShowsNoCallThatIsNotOpen) {
  int crashes = 0;
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    CrashedHistory history(seed, seed % 2 ? kSecondSlots : kHourSlots);
    history.Run(10000);
    crashes += history.crashes();
  }
  EXPECT_GT(crashes, 3000);
}

void Tear(Meter *meter, std::mt19937_64 *random) {
  auto *bytes = reinterpret_cast<unsigned char *>(&meter->reserved);
  size_t first = (*random)() % sizeof(ReservedMeter), last = first + (*random)() % (sizeof(ReservedMeter) - first) + 1;
  if ((*random)() % 2) first = 0, last = sizeof(ReservedMeter);
  for (size_t i = first; i < last; ++i) bytes[i] = static_cast<unsigned char>((*random)());
  TimeUs around = At(static_cast<double>((*random)() % 200) - 100);
  if ((*random)() % 2) meter->reserved.last_selected_at = around;
  // Slots that are taken for real ones.
  if ((*random)() % 2)
    for (int i = 0; i < kRingSlots; ++i) {
      Second second = SecondOf(around) - static_cast<Second>(i);
      meter->reserved.ring[RingIndex(second)].second = second;
    }
  if ((*random)() % 2)
    for (uint32_t i = 0; i < kOpenSlots; ++i) {
      uint32_t number = OpenNumber(*meter, SecondOf(around)) - i;
      meter->reserved.open[OpenIndex(number)].number = number & kOpenNumberMask;
    }
}

void CheckSane(const Meter &meter, TimeUs now) {
  const RecordedMeter &recorded = meter.recorded;
  WindowUse use = UseInWindow(meter, now);
  OpenCalls open = CallsInFlight(meter, now);
  ASSERT_GE(use.open, 0);
  ASSERT_GE(use.requests, use.open);
  ASSERT_GE(use.tokens, 0);
  ASSERT_GE(use.output, 0);
  ASSERT_GE(open.calls, 0);
  ASSERT_GE(open.tokens, 0);
  ASSERT_GE(open.cost, 0);
  for (const Period *period : {&recorded.day, &recorded.month}) {
    PeriodUse of = UseInPeriod(meter, *period, {Counts::kUncached, 7}, now);
    ASSERT_TRUE(of.requests >= 0 && of.tokens >= 0 && of.cost >= 0);
  }
  UsageSlot minutes[kMaxUsage];
  ASSERT_LE(UsageBy(meter, Span::kMinute, 60, now, minutes), 60);
  char text[kMaxMeterText];
  Meter read;
  size_t size = FormatMeter(meter, text);
  ASSERT_LT(size, kMaxMeterText);
  ASSERT_TRUE(ParseMeter({text, size}, &read).ok());
}

// Of random bytes: the recorded half stays what it is, nothing is admitted beyond it, and all is over when its time is.
TEST(Crash, TornReservationsAreHarmlessAndAgeOut) {
  std::mt19937_64 random(101);
  for (int round = 0; round < 4000 && !testing::Test::HasFatalFailure(); ++round) {
    uint32_t width = std::vector<uint32_t>{kSecondSlots, kHourSlots, kDaySlots}[random() % 3];
    bool is_key = width == kSecondSlots;
    Meter meter = FreshMeter(width, 60 + random() % 1000);
    for (int i = 0; i < 5; ++i) Use(&meter, {10, 5, 0, 3}, At(i));
    Tear(&meter, &random);
    RecordedMeter before = meter.recorded;
    TimeUs now = At(5);
    if (ClockWasWrong(meter, now)) {
      MeterEdit edit(&meter);
      MoveToNow(&edit, EndsFrom(now), 3600 * kMicrosPerSecond, now);
    }
    ASSERT_EQ(memcmp(&before, &meter.recorded, sizeof(before)), 0) << "the recorded half was not wrong";
    ASSERT_LE(MeterNow(meter, now), now + StartOf(kClockLead));
    now = MeterNow(meter, now);
    bool in_window = width != kSecondSlots || now <= At(60);
    WindowUse use = UseInWindow(meter, now);
    if (in_window) {
      ASSERT_GE(use.requests, 5);
      ASSERT_GE(use.tokens, 50);
      Limit recorded_limit = is_key ? Limit::kRpm : width == kHourSlots ? Limit::kRph : Limit::kRpd;
      Limits limits = LimitOf(recorded_limit, 5);
      limits.rolling_day = width == kDaySlots;
      Admission admission = Admits(meter, limits, {}, now);
      ASSERT_FALSE(admission.admitted()) << "never less than what was recorded";
      ASSERT_GT(admission.moment, now);
    }
    for (Limit limit : {Limit::kInFlight, Limit::kTpd, Limit::kCostMonth}) {
      Limits limits = LimitOf(limit, 100);
      if (!Admits(meter, limits, {1, 1, 0, 1}, now).admitted()) {
        Wait wait = WaitOf(meter, limits, {{1, 1, 0, 1}, 0, now});
        ASSERT_GE(wait.moment, now);
      }
    }
    CheckSane(meter, now);
    Reservation lease = {
        SecondOf(now) - static_cast<Second>(random() % 100), static_cast<uint32_t>(random() % 64), {99, 9, 9, 9}};
    MeterEdit edit(&meter);
    if (is_key) {
      SettleOnce(&edit, lease, now);
      while (TakeOldest(&edit, &lease, now) && random() % 64) ASSERT_LE(lease.second, SecondOf(now));
    }
    CloseInQuota(&edit, {Counts::kTokens, 1000}, lease);
    CloseShareInQuota(&edit, lease.second);
    Count(&edit, {}, {5, 1, 0, 1}, lease.second, EndsFrom(now), now);
    for (int i = 0; i < 70; ++i) Reserve(&meter, {}, {3, 1, 0, 1}, is_key, 1, now);
    CheckSane(meter, now);
    ASSERT_EQ(meter.recorded.totals.requests, 6);
    TimeUs over = now + 200 * kMicrosPerSecond + 16 * StartOf(OpenSlotWidth(meter)) + 61 * StartOf(width);
    ASSERT_EQ(UseInWindow(meter, over).requests, 0);
    ASSERT_EQ(UseInWindow(meter, over).tokens, 0);
    ASSERT_EQ(CallsInFlight(meter, over).calls, 0);
  }
}

}  // namespace
}  // namespace keypool
