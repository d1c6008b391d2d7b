// call_history_test.cpp - random calls of two keys under shared quotas: all meters of a call or none, and what eases.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <vector>

#include "core/quota/call.h"
#include "meters.h"

namespace keypool {
namespace {

constexpr TimeUs kMaxBlock = 86400 * kMicrosPerSecond;

MeterRules RulesOf(CountRule rule = {}, uint32_t ring_width = kSecondSlots) {
  return {rule, ring_width, kDefaultCallTimeout, kFarEnds};
}

// Two keys under two quotas each, one of them shared by both, in random histories.
class SharedQuotas {
 public:
  explicit SharedQuotas(uint32_t seed) : random_(seed) {
    for (const MeterRules &rules : rules_) meters_.push_back(FreshMeter(rules.ring_width, rules.call_timeout));
  }

  void Run(int steps) {
    for (int step = 0; step < steps && !testing::Test::HasFatalFailure(); ++step) {
      now_ += static_cast<TimeUs>(random_() % 500000);
      if (random_() % 500 == 0) now_ -= 20 * kMicrosPerSecond;
      for (Meter &meter : meters_)
        if (meter.reserved.awaited == 0 && random_() % 2) meter.reserved.awaited = kAwaited << random_() % 2;
      Act();
      CheckSums();
    }
  }

  int eased() const { return eased_; }

 private:
  struct Open {
    size_t key;
    Reservation reservation;
  };

  // The key's, its own quota's, and the shared one's.
  std::array<size_t, 3> MetersOf(size_t key) const { return {key, 2 + key, 4}; }

  int64_t UpTo(int64_t max) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(max + 1)); }
  Amounts Some() { return {500 + UpTo(500), UpTo(200), UpTo(200), UpTo(9)}; }

  void Act() {
    size_t key = random_() % 2;
    auto indexes = MetersOf(key);
    const MeterRules *rules[3];
    Meter *meters[3];
    for (size_t i = 0; i < 3; ++i) rules[i] = &rules_[indexes[i]], meters[i] = &meters_[indexes[i]];
    std::vector<Meter> before = meters_;
    uint8_t eased;
    if (random_() % 2) {
      CallBegun begun = ReserveCall(meters, rules, 3, {Some(), 0, true, random_() % 4 == 0}, now_);
      eased = begun.eased;
      open_.push_back({key, begun.reservation});
    } else {
      MeterEdit edits[3];
      for (size_t i = 0; i < 3; ++i) edits[i].Begin(meters[i], nullptr);
      eased = EndCall(edits, rules, 3, NewEnd(key), kMaxBlock, now_).eased;
    }
    CheckEased(before, indexes, eased);
  }

  CallEnd NewEnd(size_t key) {
    CallEnd end = EndOf(static_cast<Ending>(random_() % 3), nullptr, Some());
    end.has_lease = true;
    end.too_old = random_() % 20 == 0;
    size_t at = open_.empty() ? 0 : open_.size() - 1 - random_() % std::min<size_t>(open_.size(), 40);
    if (open_.empty() || open_[at].key != key || random_() % 5 == 0) {
      end.has_lease = end.too_old = false;
      if (end.ending == Ending::kReleased) end.ending = Ending::kRecorded;
    } else {
      end.reservation = open_[at].reservation;
      if (random_() % 4) open_.erase(open_.begin() + static_cast<ptrdiff_t>(at));  // else it is repeated
    }
    if (end.ending != Ending::kLimited) return end;
    end.blames = static_cast<uint8_t>(random_() % 8);
    end.blamed_model = random_() % 3;
    end.until = now_ + static_cast<TimeUs>(1 + random_() % 3000000);
    return end;
  }

  // The mask says what the loads before and after say.
  void CheckEased(const std::vector<Meter> &before, const std::array<size_t, 3> &indexes, uint8_t eased) {
    std::vector<bool> in_call(5);
    for (size_t i = 0; i < 3; ++i) {
      const Meter &was = before[indexes[i]], &is = meters_[indexes[i]];
      const CountRule &rule = rules_[indexes[i]].rule;
      uint32_t awaited = was.reserved.awaited;
      bool less = LoadOf(is, rule, 0).EasedFrom(LoadOf(was, rule, 0), (awaited & kAwaitedForCalls) != 0);
      ASSERT_EQ((eased >> i & 1) != 0, awaited != 0 && less);
      ASSERT_EQ(is.reserved.awaited, awaited != 0 && less ? 0 : awaited);
      in_call[indexes[i]] = true;
      eased_ += awaited != 0 && less;
    }
    for (size_t i = 0; i < 5; ++i)
      if (!in_call[i]) {
        ASSERT_EQ(memcmp(&before[i], &meters_[i], sizeof(Meter)), 0);
      }
  }

  // All meters of a call or none: what a quota holds is the sum of what its keys hold.
  void CheckSums() {
    for (size_t key : {0, 1}) ExpectSameTotals({meters_[key]}, meters_[2 + key]);
    ExpectSameTotals({meters_[0], meters_[1]}, meters_[4]);
  }

  void ExpectSameTotals(const std::vector<Meter> &keys, const Meter &quota) {
    int64_t requests = 0, tokens = 0, output = 0, cost = 0, releases = 0, selections = 0;
    for (const Meter &key : keys) {
      requests += key.recorded.totals.requests;
      tokens += key.recorded.totals.tokens;
      output += key.recorded.totals.output;
      cost += key.recorded.totals.cost;
      releases += key.reserved.releases;
      selections += key.reserved.selections;
    }
    ASSERT_EQ(quota.recorded.totals.requests, requests);
    ASSERT_EQ(quota.recorded.totals.tokens, tokens);
    ASSERT_EQ(quota.recorded.totals.output, output);
    ASSERT_EQ(quota.recorded.totals.cost, cost);
    ASSERT_EQ(quota.reserved.releases, releases);
    ASSERT_EQ(quota.reserved.selections, selections);
  }

  std::mt19937 random_;
  TimeUs now_ = kStart;
  std::vector<MeterRules> rules_ = {RulesOf(), RulesOf(), RulesOf({Counts::kInput, 1}), RulesOf({}, kHourSlots),
                                    RulesOf({Counts::kTokens, 5})};
  std::vector<Meter> meters_;  // two keys, the quota of each, and the one of both
  std::vector<Open> open_;
  int eased_ = 0;
};

TEST(EndCall, KeepsQuotasTheSumOfTheirKeysAndTellsOfWhatEases) {
  int eased = 0;
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SharedQuotas history(seed);
    history.Run(2000);
    eased += history.eased();
  }
  EXPECT_GT(eased, 1000);
}

}  // namespace
}  // namespace keypool
