// mixed_history_test.cpp - calls that are settled in every way at once, by lease or without, twice, after a crash, and
// by another rule than they began with.
//
// Which open call a settlement without a lease ends is not known, so no list of what happened can say what the window
// holds (history_test.cpp). But what a meter admits must fit beside what its slots hold, whatever they hold.
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "core/quota/call.h"
#include "core/quota/meter_text.h"
#include "meters.h"

namespace keypool {
namespace {

constexpr TimeUs kMaxBlock = 60 * kMicrosPerSecond;
constexpr size_t kMeters = 2;  // a key, and its quota

struct SlotSums {
  int64_t requests = 0, tokens = 0, output = 0;
};

// What the slots hold of the last 60 seconds and the rest of one.
SlotSums SumSlots(const Meter &meter, TimeUs now) {
  SlotSums sums;
  auto newest = static_cast<int64_t>(MeterSecond(meter, now));
  auto add = [&](int64_t second, int64_t requests, int64_t tokens, int64_t output) {
    if (second < newest - 60 || second > newest) return;
    sums.requests += requests;
    sums.tokens += tokens;
    sums.output += output;
  };
  for (const RecordedSlot &slot : meter.recorded.ring) add(slot.number, slot.requests, slot.tokens, slot.output);
  for (const ReservedSlot &slot : meter.reserved.ring) add(slot.second, slot.open, slot.tokens, slot.output);
  return sums;
}

bool Fits(int64_t max, int64_t held, int64_t more) { return max == 0 || (held < max && held + more <= max); }

class MixedHistory {
 public:
  explicit MixedHistory(uint32_t seed) : random_(seed), meters_{KeyMeter(), KeyMeter()}, pages_(meters_) {
    for (Limits &limits : limits_) NewLimits(&limits);
  }

  void Run(int steps) {
    for (int step = 0; step < steps && !testing::Test::HasFatalFailure(); ++step) {
      now_ += UpTo(700000);
      if (OneIn(300)) now_ -= UpTo(20 * kMicrosPerSecond);
      if (OneIn(100)) limits_[1].rule = {static_cast<Counts>(random_() % 4), static_cast<int32_t>(1 + UpTo(4))};
      if (OneIn(100)) NewLimits(&limits_[random_() % kMeters]);
      if (OneIn(100)) pages_ = meters_;
      if (OneIn(400)) Crash();
      if (OneIn(400)) Restore();
      OneIn(2) ? SelectOne() : SettleOne();
    }
  }

  int selected() const { return selected_; }
  int refused() const { return refused_; }

 private:
  int64_t UpTo(int64_t max) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(max + 1)); }
  bool OneIn(unsigned n) { return random_() % n == 0; }

  void NewLimits(Limits *limits) {
    limits->of(Limit::kRpm) = OneIn(2) ? 1 + UpTo(200) : 0;
    limits->of(Limit::kTpm) = OneIn(2) ? 300 + UpTo(50000) : 0;
    limits->of(Limit::kOutputTpm) = OneIn(2) ? 100 + UpTo(9000) : 0;
  }

  // Often nothing or much, so that a share of one call is nothing like another.
  Amounts SomeAmounts() {
    Amounts amounts = {OneIn(3) ? 0 : UpTo(600), OneIn(3) ? 0 : UpTo(200), OneIn(3) ? 0 : UpTo(200), UpTo(9)};
    CoverParts(&amounts);
    return amounts;
  }

  std::array<MeterRules, kMeters> Rules() const {
    std::array<MeterRules, kMeters> rules;
    for (size_t i = 0; i < kMeters; ++i) rules[i] = {limits_[i].rule, kSecondSlots, kDefaultCallTimeout, kFarEnds};
    return rules;
  }

  void SelectOne() {
    Amounts estimates = SomeAmounts();
    bool admitted = true;
    for (size_t i = 0; i < kMeters; ++i) admitted = CheckAdmission(meters_[i], limits_[i], estimates) && admitted;
    ++(admitted ? selected_ : refused_);
    if (!admitted) return;
    auto rules = Rules();
    Meter *meters[] = {&meters_[0], &meters_[1]};
    const MeterRules *pointers[] = {&rules[0], &rules[1]};
    leases_.push_back(ReserveCall(meters, pointers, kMeters, {estimates, 0, false, false}, now_).reservation);
  }

  bool CheckAdmission(const Meter &meter, const Limits &limits, const Amounts &estimates) {
    Limit which;
    if (!CanEverServe(limits, estimates, &which)) return false;
    SlotSums held = SumSlots(meter, now_);
    bool fits = Fits(limits.of(Limit::kRpm), held.requests, 1) &&
                Fits(limits.of(Limit::kTpm), held.tokens, CountedTokens(estimates, limits.rule)) &&
                Fits(limits.of(Limit::kOutputTpm), held.output, estimates.output);
    EXPECT_EQ(Admits(meter, limits, estimates, now_).admitted(), fits);
    return fits;
  }

  // By a lease of the last ones, be it settled or not, or without one; used, given back or refused by the provider.
  void SettleOne() {
    CallEnd end = {};
    end.ending = static_cast<Ending>(random_() % 3);
    end.has_lease = !leases_.empty() && !OneIn(3);
    end.used = SomeAmounts();
    if (end.has_lease) end.reservation = leases_[leases_.size() - 1 - random_() % std::min<size_t>(leases_.size(), 50)];
    if (!end.has_lease && end.ending == Ending::kReleased) end.ending = Ending::kRecorded;
    auto rules = Rules();
    const MeterRules *pointers[] = {&rules[0], &rules[1]};
    MeterEdit edits[kMeters];
    for (size_t i = 0; i < kMeters; ++i) edits[i].Begin(&meters_[i], nullptr);
    EndCall(edits, pointers, kMeters, end, kMaxBlock, now_);
  }

  // What was not logged is as it was when the page was written.
  void Crash() {
    for (size_t i = 0; i < kMeters; ++i) meters_[i].reserved = pages_[i].reserved;
  }

  // As a dump and its restore leave it.
  void Restore() {
    for (Meter &meter : meters_) {
      char text[kMaxMeterText];
      size_t size = FormatMeter(meter, text);
      Meter restored;
      ASSERT_TRUE(ParseMeter({text, size}, &restored).ok());
      meter = restored;
    }
  }

  std::mt19937 random_;
  TimeUs now_ = kStart;
  std::array<Meter, kMeters> meters_, pages_;
  std::array<Limits, kMeters> limits_;
  std::vector<Reservation> leases_;
  int selected_ = 0, refused_ = 0;
};

TEST(MixedHistory, AdmitsJustWhatFitsBesideWhatTheSlotsHold) {
  int selected = 0, refused = 0;
  for (uint32_t seed = 1; seed <= 30 && !testing::Test::HasFailure(); ++seed) {
    MixedHistory history(seed);
    history.Run(5000);
    selected += history.selected();
    refused += history.refused();
  }
  EXPECT_GT(selected, 10000);
  EXPECT_GT(refused, 10000);
}

}  // namespace
}  // namespace keypool
